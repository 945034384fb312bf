"""Live against transformers: what we load computes the same, what we write loads there and computes the same."""

import dataclasses
import json

from golden import cases
import jax
import numpy as np
from parity import peers
import pytest
import tokenizers
import torch
import transformers

from ftjax.adapters import lora, merge
from ftjax.checkpoint import hf_export, hf_import
from ftjax.models import decoder
from ftjax.sampling import generate

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
logits = jax.jit(decoder.logits, static_argnums=2)
KINDS = ("plain", "padded", "packed")


def ours(model, config):
    given = cases.inputs()
    return {kind: np.asarray(logits(model, given[kind], config, None, given[f"{kind}_segments"])) for kind in KINDS}


def assert_close(found, theirs, tolerance):
    for kind in KINDS:
        real = cases.inputs()[f"{kind}_segments"] > 0
        np.testing.assert_allclose(found[kind][real], theirs[f"{kind}_logits"][real], rtol=0, atol=tolerance)


def tokenizer():
    plain = tokenizers.Tokenizer(tokenizers.models.BPE())
    plain.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = tokenizers.decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=cases.V, special_tokens=special, show_progress=False)
    plain.train_from_iterator(["the cat sat on the mat and the dog ran"], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}{% endfor %}"
    return fast


@pytest.mark.parametrize("case", cases.MODELS)
def test_golden_files_are_what_transformers_says_today(case):
    golden = cases.read(case)
    made = peers.model(cases.MODELS[case])
    assert golden["config"] == cases.MODELS[case]
    for name, value in peers.state(made).items():
        np.testing.assert_array_equal(value, golden["tensors"][name], err_msg=name)
    found = peers.logits(made, cases.inputs())
    for name, value in found.items():
        np.testing.assert_allclose(value, golden[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", cases.MODELS)
def test_a_model_saved_by_transformers_computes_the_same_here(case, tmp_path):
    made = peers.model(cases.MODELS[case], seed=3)
    made.save_pretrained(tmp_path)  # writes config.json with the keys of its own version
    config, base = hf_import.load(tmp_path)
    assert_close(ours(base, config), peers.logits(made, cases.inputs()), 2e-5)


@pytest.mark.parametrize("case", cases.MODELS)
def test_greedy_decoding_gives_the_same_tokens(case, tmp_path):
    made = peers.model(cases.MODELS[case], seed=3)
    made.save_pretrained(tmp_path)
    config, base = hf_import.load(tmp_path)
    given = cases.inputs()
    prompts = [row[mask == 1].tolist() for row, mask in zip(given["padded"], given["padded_segments"], strict=True)]
    config = dataclasses.replace(config, max_position=64)
    settings = {"max_new_tokens": 16, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop_ids": ()}
    found = generate.generate(base, prompts, jax.random.key(0), config, **settings).tokens
    np.testing.assert_array_equal(found, peers.greedy(made, given))


@pytest.mark.parametrize("shard", [5_000_000_000, 30_000])
@pytest.mark.parametrize("case", cases.MODELS)
def test_a_merged_folder_loads_in_transformers_with_equal_logits(case, shard, tmp_path):
    made = peers.model(cases.MODELS[case], seed=4)
    made.save_pretrained(tmp_path / "source")
    tokenizer().save_pretrained(tmp_path / "source")
    config, base = hf_import.load(tmp_path / "source")
    rng = np.random.default_rng(0)
    draw = lambda *shape: (0.2 * rng.standard_normal(shape)).astype(np.float32)
    delta = lambda w: lora.LoRA(a=draw(*w.shape[:-1], 2), b=draw(*w.shape[:-2], 2, w.shape[-1]), scale=2.0, dropout=0.0)
    adapters = jax.tree.map(lambda _: None, base)
    blocks = adapters.blocks.replace(q_proj=delta(base.blocks.q_proj), down_proj=delta(base.blocks.down_proj))
    dense = merge.merge(base, adapters.replace(blocks=blocks))
    hf_export.save(tmp_path / "out", dense, config, tmp_path / "source", max_shard_bytes=shard)
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs = peers.logits(loaded.eval(), cases.inputs())
    assert_close(ours(dense, config), theirs, 2e-5)
    untouched = peers.logits(made, cases.inputs())
    assert np.abs(theirs["plain_logits"] - untouched["plain_logits"]).max() > 0.1
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert reader("the cat ran").input_ids == tokenizer()("the cat ran").input_ids != []
    assert reader.chat_template == tokenizer().chat_template


def test_a_bfloat16_folder_is_loaded_as_bfloat16(tmp_path):
    made = peers.model(cases.MODELS["qwen3_plain"])
    made.save_pretrained(tmp_path / "source")
    config, base = hf_import.load(tmp_path / "source")
    hf_export.save(tmp_path / "out", base, config, tmp_path / "source", dtype="bfloat16")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, made.state_dict()[name].to(torch.bfloat16)), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
