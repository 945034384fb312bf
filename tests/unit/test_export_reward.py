"""Reward models written for others. tests/parity/test_parity_reward.py has transformers' own scores."""

import dataclasses
import json
import re
import types

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax import export, inference
from ftjax.adapters import lora
from ftjax.checkpoint import hf_export, hf_import, peft, reward_folder
from ftjax.data import tokenizer
from ftjax.errors import UserError
from ftjax.models import params

HEAD = jnp.linspace(-1, 1, 32, dtype=jnp.float32)[:, None]
NORMAL = '{"mean": 0.5, "std": 2.0}\n'


@pytest.fixture(scope="module")
def reward(tmp_path_factory, tiny_base):
    """The folder of a reward adapter of the tiny base, with its normalisation; not to be written to."""
    config, base = hf_import.load(tiny_base)
    layers, rows, columns = base.blocks.q_proj.shape
    node = lora.LoRA(a=jnp.ones((layers, rows, 2)), b=jnp.ones((layers, 2, columns)), scale=0.01, dropout=0.0)
    folder = tmp_path_factory.mktemp("reward") / "adapter"
    peft.save(folder, params.from_paths({"blocks.q_proj": node, "score": HEAD}), config, str(tiny_base))
    (folder / "score.json").write_text(NORMAL)
    return folder


def asked(base, adapter):
    return export.of_model(str(base), adapter=str(adapter), template_name=None, rank=None)


def merged(base, adapter, out):
    settings = {"dtype": None, "base": None, "max_shard_bytes": 10**9, "command": "c", "say": print}
    export.merged(asked(base, adapter), out, **settings)
    return json.loads((out / "config.json").read_text()), safetensors_numpy.load_file(out / "model.safetensors")


def test_a_merged_reward_model_has_a_score_and_no_head_of_words(tiny_base, reward, tmp_path):
    config, tensors = merged(tiny_base, reward, tmp_path / "out")
    source = json.loads((tiny_base / "config.json").read_text())
    new = {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "pad_token_id": 0,
    }
    assert config == source | new
    np.testing.assert_array_equal(tensors.pop("score.weight"), HEAD.T)
    stored = safetensors_numpy.load_file(tiny_base / "model.safetensors")
    assert tensors.keys() == stored.keys()
    changed = {name for name, value in tensors.items() if not np.array_equal(value, stored[name])}
    assert changed == {name for name in stored if name.endswith("q_proj.weight")}
    assert (tmp_path / "out" / "score.json").read_text() == NORMAL
    assert not (tmp_path / "out" / "generation_config.json").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- reward-model" in card
    assert 'AutoModelForSequenceClassification.from_pretrained("this folder")' in card


def test_an_adapter_goes_out_with_its_normalisation_and_a_card_that_says_how_it_is_loaded(tiny_base, reward, tmp_path):
    export.peft(asked(tiny_base, reward), tmp_path / "out", command="c", say=print)
    assert (tmp_path / "out" / "score.json").read_text() == NORMAL
    card = (tmp_path / "out" / "README.md").read_text()
    assert f'AutoModelForSequenceClassification.from_pretrained("{tiny_base}", num_labels=1)' in card
    assert "- lora\n- reward-model" in card


def test_a_reward_model_is_neither_cut_nor_summed(tiny_base, reward, tmp_path):
    cut = export.of_model(str(tiny_base), adapter=str(reward), template_name=None, rank=1)
    with pytest.raises(UserError, match="score is trained whole, and arithmetic is for LoRA"):
        export.peft(cut, tmp_path / "out", command="c", say=print)


def test_padding_is_a_token_in_which_no_text_ends(tiny_base, tmp_path):
    tok = tokenizer.load(tiny_base)
    assert reward_folder.facts(tok, (2,), None) == (0, "<|pad|>", None)
    assert reward_folder.facts(tok, (2, 0), None)[:2] == (1, "<|im_start|>")  # padding is an end of turn: another one
    fewer = types.SimpleNamespace(pad_id=2, bos_id=1, special_ids=frozenset({1, 2}), token=tok.token)
    with pytest.raises(UserError, match=r"pads with '<\|im_end\|>', in which a text may end.*--format peft"):
        reward_folder.facts(fewer, (2,), None)
    for name, text in (("tokenizer_config", '{"pad_token": {"content": "<|im_end|>"}}'), ("special_tokens_map", "{}")):
        (tmp_path / f"{name}.json").write_text(text)
    reward_folder.write(tmp_path, reward_folder.Facts(0, "<|pad|>", None))
    for name in ("tokenizer_config", "special_tokens_map"):
        assert json.loads((tmp_path / f"{name}.json").read_text())["pad_token"] == "<|pad|>"
    assert not (tmp_path / "score.json").exists()


def test_a_family_without_a_class_is_named_and_a_head_is_not_forgotten(tiny_base, tmp_path):
    with pytest.raises(UserError, match="no class for sequence classification on gpt9; known: gemma2"):
        reward_folder.architecture("gpt9")
    config, base = hf_import.load(tiny_base)
    facts = reward_folder.Facts(0, "<|pad|>", None)
    for model, given in ((base, facts), (base.replace(score=HEAD), None)):
        with pytest.raises(ValueError, match="a reward model needs `reward`"):
            hf_export.save(tmp_path / "out", model, config, tiny_base, reward=given)


def test_an_adapter_of_a_quantised_base_is_merged_with_the_difference_of_its_scores_told(tiny_base, reward, tmp_path):
    said = []
    held = inference.Quant("int8")
    whole = dataclasses.replace(asked(tiny_base, reward), quant=held)
    export.merged(whole, tmp_path / "out", dtype=None, base=None, max_shard_bytes=10**9, command="c", say=said.append)
    assert re.fullmatch(r"merging into the dequant weights; scores of the original ones differ by .* 0\.\d+", said[-1])
    assert "score.weight" in safetensors_numpy.load_file(tmp_path / "out" / "model.safetensors")
