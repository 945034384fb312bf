"""Adapters with a reward head: PEFT's task SEQ_CLS. tests/parity/test_parity_reward.py has PEFT itself."""

import json

from golden import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax.adapters import tables
from ftjax.checkpoint import hf_import, peft
from ftjax.errors import UserError

SCORE = "base_model.model.score.weight"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    names = ("llama_plain", "qwen2_plain")  # with a head of its own, and tied
    return {name: hf_import.load(cases.unpack(name, tmp_path_factory.mktemp(name))) for name in names}


@pytest.fixture
def reward(bases, tmp_path):
    """Returns (folder of a reward adapter, base, config, its adapters)."""

    def make(case="lora_qv"):
        config, base = bases[cases.ADAPTERS[case][0]]
        adapters = peft.load(cases.unpack(case, tmp_path / "causal"), base, config)
        score = np.random.default_rng(0).standard_normal((config.d_model, 1)).astype(np.float32)
        adapters = adapters.replace(score=jnp.asarray(score))
        peft.save(tmp_path / "reward", adapters, config, "some/base")
        return tmp_path / "reward", base, config, adapters

    return make


def edit(folder, tensors=None, **keys):
    """Changes keys of adapter_config.json and tensors; None removes one."""
    file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    facts = json.loads(file.read_text()) | keys
    file.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))
    found = safetensors_numpy.load_file(weights) | (tensors or {})
    safetensors_numpy.save_file({name: value for name, value in found.items() if value is not None}, weights)


def test_what_is_written_is_read_again_and_the_head_lies_as_pefts_does(reward):
    folder, base, config, adapters = reward()
    facts = json.loads((folder / "adapter_config.json").read_text())
    assert (facts["task_type"], facts["modules_to_save"]) == ("SEQ_CLS", ["score"])
    stored = safetensors_numpy.load_file(folder / "adapter_model.safetensors")[SCORE]
    assert (stored.shape, stored.dtype) == ((1, config.d_model), np.float32)
    again = peft.load(folder, base, config)
    assert jax.tree.structure(again) == jax.tree.structure(adapters)
    jax.tree.map(np.testing.assert_array_equal, again, adapters)


def test_an_adapter_of_a_language_model_has_no_score(bases, tmp_path):
    config, base = bases["llama_plain"]
    assert peft.load(cases.unpack("lora_qv", tmp_path / "a"), base, config).score is None


@pytest.mark.parametrize("case", ["lora_saved_tied", "lora_embedding_tied", "lora_embedding_both", "lora_tokens"])
def test_without_a_language_models_head_the_embedding_is_tied_to_nothing(case, reward):
    folder, base, config, adapters = reward(case)
    facts = json.loads((folder / "adapter_config.json").read_text())
    assert not facts.get("ensure_weight_tying")
    stored = safetensors_numpy.load_file(folder / "adapter_model.safetensors")
    assert not [name for name in stored if "lm_head" in name]
    again = peft.load(folder, base, config)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(again), jax.tree.leaves(adapters))


def test_a_trained_embedding_is_saved_beside_the_head(reward):
    folder, base, config, adapters = reward("lora_saved_tied")
    facts = json.loads((folder / "adapter_config.json").read_text())
    assert facts["modules_to_save"] == ["embed_tokens", "score"]
    assert isinstance(peft.load(folder, base, config).embed_tokens, tables.Copy)
    del adapters


def test_pefts_own_list_of_heads_means_the_same(reward):
    folder, base, config, adapters = reward()
    for saved in (["classifier", "score"], ["score", "classifier", "score"], [], None):
        edit(folder, modules_to_save=saved)
        np.testing.assert_array_equal(peft.load(folder, base, config).score, adapters.score)


@pytest.mark.parametrize(
    ("tensors", "keys", "match"),
    [
        (
            {SCORE: np.ones((3, 32), np.float32)},
            {},
            r"\(3, 32\), not \(1, 32\): it tells 3 classes apart \(num_labels\)",
        ),
        ({SCORE: np.ones((1, 48), np.float32)}, {}, "reward head from another base, whose hidden size is 48; .* is 32"),
        ({SCORE: None}, {}, "score.weight is missing, though .* says task_type SEQ_CLS"),
        ({}, {"task_type": "CAUSAL_LM"}, "modules_to_save score are not modules of this base"),
        ({}, {"task_type": "CAUSAL_LM", "modules_to_save": None}, "does not explain: base_model.model.score.weight"),
        ({SCORE.replace("weight", "bias"): np.ones(1, np.float32)}, {}, "does not explain: .*score.bias"),
        ({}, {"modules_to_save": ["score", "lm_head"]}, "modules_to_save lm_head are not modules of this base"),
        ({}, {"target_modules": ["q_proj", "v_proj", "lm_head"]}, "target_modules lm_head adapt nothing"),
        ({}, {"trainable_token_indices": {"lm_head": [3]}}, "name lm_head; known: embed_tokens$"),
    ],
)
def test_a_head_that_is_not_one_score_of_this_base_is_refused_by_name(reward, tensors, keys, match):
    folder, base, config, _ = reward()
    edit(folder, tensors, **keys)
    with pytest.raises(UserError, match=match) as error:
        peft.load(folder, base, config)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_head_of_another_width_or_an_adapted_head_of_words_is_not_written(reward, bases, tmp_path):
    _, _, config, adapters = reward()
    with pytest.raises(UserError, match=r"score is \(48, 1\), not \(32, 1\): a reward head from another base"):
        peft.save(tmp_path / "out", adapters.replace(score=jnp.ones((48, 1))), config, None)
    _, base = bases["llama_plain"]
    both = peft.load(cases.unpack("lora_head", tmp_path / "head"), base, config).replace(score=adapters.score)
    with pytest.raises(UserError, match="an adapter on lm_head beside a reward head has no PEFT form"):
        peft.save(tmp_path / "out", both, config, None)
    assert not (tmp_path / "out").exists()
