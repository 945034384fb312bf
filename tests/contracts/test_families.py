"""Every family, the day its file appears: it names every tensor once and computes what transformers does."""

from collections import Counter
import dataclasses
import importlib
import inspect
import json

from golden import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import lookup, tree
from ftjax.checkpoint import hf_import
from ftjax.errors import UserError
from ftjax.models import decoder, params
from ftjax.models import families as families_package
from ftjax.sampling import generate

FAMILIES = lookup.modules(families_package.__name__)
TOLERANCE = 2e-5  # logits are of order 1; transformers' own backends differ by a few 1e-6

logits = jax.jit(decoder.logits, static_argnums=2)


def family(name):
    return importlib.import_module(f"{families_package.__name__}.{name}")


def case_of(name, which=0):
    return [config for config in cases.MODELS.values() if config["model_type"] == name][which]


def greedy(base, golden, config):
    """The tokens that generate adds to the left-padded prompts of a golden file."""
    config = dataclasses.replace(config, max_position=64)  # the dynamic case goes beyond its 8 on purpose
    prompts = [row[mask == 1].tolist() for row, mask in zip(golden["padded"], golden["padded_segments"], strict=True)]
    settings = {
        "max_new_tokens": golden["greedy"].shape[1],
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "stop_ids": (),
    }
    return generate.generate(base, prompts, jax.random.key(0), config, **settings).tokens


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Golden arrays, config and weights of a case, read through the importer; each case is read once."""
    found = {}

    def load(case):
        if case not in found:
            folder = cases.unpack(case, tmp_path_factory.mktemp(case))
            found[case] = (cases.read(case), *hf_import.load(folder))
        return found[case]

    return load


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_the_two_functions_and_a_golden_case(name):
    assert list(inspect.signature(family(name).config_from_hf).parameters) == ["hf"]
    assert list(inspect.signature(family(name).names_from_hf).parameters) == ["config"]
    assert case_of(name)


@pytest.mark.parametrize("case", cases.MODELS)
def test_every_tensor_has_one_place_and_every_place_one_tensor(case):
    hf = cases.MODELS[case]
    config = family(hf["model_type"]).config_from_hf(hf)
    places = family(hf["model_type"]).names_from_hf(config)
    shapes = tree.paths(params.abstract(config, jnp.float32))
    wanted = {
        (path, row)
        for path, leaf in shapes.items()
        for row in (range(leaf.shape[0]) if path.startswith("blocks.") else (None,))
    }
    assert Counter((place.path, place.layer) for place in places.values()) == Counter(wanted)
    assert places.keys() == cases.read(case)["tensors"].keys()


@pytest.mark.parametrize("case", cases.MODELS)
@pytest.mark.parametrize("kind", ["plain", "padded", "packed"])
def test_logits_equal_those_of_transformers(case, kind, loaded):
    golden, config, base = loaded(case)
    segments = golden[f"{kind}_segments"]
    found = np.asarray(logits(base, golden[kind], config, None, segments))
    real = segments > 0
    np.testing.assert_allclose(found[real], golden[f"{kind}_logits"][real], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", cases.DECODED)
def test_greedy_decoding_with_the_cache_gives_the_tokens_of_transformers(case, loaded):
    golden, config, base = loaded(case)
    np.testing.assert_array_equal(greedy(base, golden, config), golden["greedy"])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_among_the_cases_that_are_decoded(name):
    assert name in {cases.MODELS[case]["model_type"] for case in cases.DECODED}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partial_rotary_factor", 0.5),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_scaling", {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0, "attention_factor": 0.7}),
        ("rope_parameters", {"rope_type": "llama3", "factor": 2.0, "high_freq_factor": 4.0}),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("query_pre_attn_scalar", 224),
        ("residual_multiplier", 0.22),
        ("num_local_experts", 8),
        ("use_qk_norm", True),
        ("clip_qkv", 8.0),
        ("no_rope_layers", [1, 1, 0]),
        ("hidden_act", "gelu"),
        ("quantization_config", {"quant_method": "bitsandbytes"}),
        ("num_key_value_heads", 3),
        ("head_dim", 7),
        ("rms_norm_eps", "tiny"),
    ],
)
def test_a_config_key_that_is_not_implemented_is_refused_by_name(name, key, value):
    with pytest.raises(UserError, match=f"{key}|rope_type|rope_parameters"):
        family(name).config_from_hf(case_of(name) | {key: value})


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"])
def test_a_size_that_is_missing_is_an_error_that_names_it(name, key):
    with pytest.raises(UserError, match=key):
        family(name).config_from_hf({k: v for k, v in case_of(name).items() if k != key})


@pytest.mark.parametrize("name", FAMILIES)
def test_keys_that_say_nothing_of_the_maths_are_ignored(name):
    noise = {
        "use_cache": False,
        "transformers_version": "5.23.0",
        "attention_dropout": 0.1,
        "my_note": "x",
        "pretraining_tp": 2,
    }
    neutral = {"attn_logit_softcapping": None, "partial_rotary_factor": 1.0, "residual_multiplier": 1.0}
    hf = case_of(name)
    assert family(name).config_from_hf(hf | noise | neutral) == family(name).config_from_hf(hf)


@pytest.mark.parametrize("name", FAMILIES)
def test_old_and_new_rope_keys_mean_the_same(name):
    hf = {k: v for k, v in case_of(name).items() if not k.startswith("rope_")}
    scaled = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    spellings = [
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3"} | scaled},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3"} | scaled},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5} | scaled},
        {
            "rope_parameters": {
                k: {"rope_type": "llama3", "rope_theta": 5e5} | scaled for k in ("full_attention", "other")
            }
        },
    ]
    ropes = {family(name).config_from_hf(hf | spelling).rope for spelling in spellings}
    assert len(ropes) == 1
    assert dataclasses.asdict(ropes.pop()) | {"kind": "llama3", "theta": 5e5, "factor": 8.0} == {
        "kind": "llama3",
        "theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position": 16,
    }


def test_layers_with_different_rope_settings_are_refused():
    nested = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    with pytest.raises(UserError, match="different rotary settings"):
        family("qwen3").config_from_hf(case_of("qwen3") | {"rope_parameters": nested})


def test_windows_follow_the_rule_of_each_family():
    windows = {case: family(hf["model_type"]).config_from_hf(hf).windows for case, hf in cases.MODELS.items()}
    assert windows["mistral_window"] == (5, 5, 5)
    assert windows["mistral_full"] == (0, 0, 0)
    assert windows["qwen2_plain"] == (0, 0, 0)
    assert windows["qwen2_upper_windows"] == (0, 4, 4)
    assert windows["qwen2_alternating"] == (3, 0, 3)
    assert windows["qwen3_biases_windows"] == (0, 0, 4)
    absent = {k: v for k, v in cases.MODELS["mistral_full"].items() if k != "sliding_window"}
    assert family("mistral").config_from_hf(absent).windows == (4096,) * 3  # transformers' default, not "none"


def test_an_unknown_model_type_is_an_error_that_lists_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "lama"}))
    with pytest.raises(UserError, match=r"lama.*Did you mean 'llama'.*mistral") as error:
        hf_import.read_config(tmp_path)
    assert "\n" not in str(error.value)
