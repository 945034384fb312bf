"""Every family, the day its file appears: it names every tensor once and computes what transformers does."""

from collections import Counter
import dataclasses
import importlib
import inspect
import itertools
import json

from golden import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import lookup, tree
from ftjax.checkpoint import hf_import
from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models import decoder, params
from ftjax.models import families as families_package
from ftjax.nn import cache
from ftjax.nn import rope as rope_kinds

FAMILIES = lookup.modules(families_package.__name__)
GEMMAS, EXPERTS = ("gemma2", "gemma3_text"), ("mixtral", "qwen3_moe")
# Where a key of the refusal test is implemented after all.
IMPLEMENTED = {
    "partial_rotary_factor": ("phi3",),
    "attn_logit_softcapping": ("gemma2",),
    "final_logit_softcapping": GEMMAS,
    "query_pre_attn_scalar": GEMMAS,
    "num_local_experts": ("mixtral",),
    "no_rope_layers": ("smollm3",),
}
TOLERANCE = 2e-5  # logits are of order 1; transformers' own backends differ by a few 1e-6

FAST = {"xla_backend_optimization_level": 0}  # of compiling, which is most of the time here; the numbers are the same
logits = jax.jit(decoder.logits, static_argnums=2, compiler_options=FAST)
decode = jax.jit(decoder.decode, static_argnums=4, compiler_options=FAST)


def family(name):
    return importlib.import_module(f"{families_package.__name__}.{name}")


def case_of(name, which=0):
    return [config for config in cases.MODELS.values() if config["model_type"] == name][which]


def greedy(base, golden, config):
    """The most likely tokens after the left-padded prompts of a golden file, one at a time with the cache."""
    valid = jnp.asarray(golden["padded_segments"])
    rows, new = golden["greedy"].shape
    kv = cache.init(
        layers=config.n_layers,
        batch=rows,
        slots=valid.shape[1] + new,
        kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        dtype=config.dtype,
    )
    scores, kv = decode(base, jnp.asarray(golden["padded"]), valid, kv, config)
    tokens = [jnp.argmax(scores, axis=-1)]
    while len(tokens) < new:
        scores, kv = decode(base, tokens[-1][:, None], jnp.ones((rows, 1), jnp.int32), kv, config)
        tokens.append(jnp.argmax(scores, axis=-1))
    return np.stack(tokens, axis=1)


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
    shapes = {path: leaf.shape for path, leaf in tree.paths(params.abstract(config, jnp.float32)).items()}
    letters = tree.paths(params.axes(config), lambda leaf: isinstance(leaf, tuple))
    stacked = {path: len([*itertools.takewhile(lambda axis: axis in "LE", letters[path])]) for path in shapes}
    wanted = {(path, index) for path, shape in shapes.items() for index in np.ndindex(*shape[: stacked[path]])}
    assert Counter((part.path, part.at) for place in places.values() for part in place.pieces) == Counter(wanted)
    assert places.keys() == cases.read(case)["tensors"].keys()
    for name, place in places.items():
        assert place.stored_shape(shapes) == cases.read(case)["tensors"][name].shape
        ends = [part.rows for part in place.parts]
        assert [start for start, _ in ends] == [0, *(stop for _, stop in ends)][: len(ends)]


def test_every_mechanism_of_the_config_is_in_some_case():
    configs = [family(hf["model_type"]).config_from_hf(hf) for hf in cases.MODELS.values()]
    how_it_runs = {"dtype", "remat", "unroll"}
    for field in dataclasses.fields(model_config.ModelConfig):
        if field.default is not dataclasses.MISSING and field.name not in how_it_runs:
            assert any(getattr(config, field.name) != field.default for config in configs), field.name
    ropes = [rope for config in configs for rope in (config.rope, config.second_rope) if rope]
    assert {rope.kind for rope in ropes} == set(rope_kinds.KINDS)
    assert any(rope.partial != 1 for rope in ropes)


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
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "beta_medium": 2.0}),
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
        ("shared_expert_intermediate_size", 64),
        ("use_bidirectional_attention", True),
        ("no_rope_layers", [1, 1, 0, 1]),
        ("hidden_act", "gelu"),
        ("quantization_config", {"quant_method": "bitsandbytes"}),
        ("num_key_value_heads", 3),
        ("head_dim", 7),
        ("rms_norm_eps", "tiny"),
    ],
)
def test_a_config_key_that_is_not_implemented_is_refused_by_name(name, key, value):
    if name in IMPLEMENTED.get(key, ()):
        assert family(name).config_from_hf(case_of(name) | {key: value}) != family(name).config_from_hf(case_of(name))
        return
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
        "router_aux_loss_coef": 0.02,
        "output_router_logits": True,
    }
    neutral = {"partial_rotary_factor": 1.0, "residual_multiplier": 1.0}
    if name != "gemma2":  # whose absent cap is one of 50
        neutral["attn_logit_softcapping"] = None
    hf = case_of(name)
    assert family(name).config_from_hf(hf | noise | neutral) == family(name).config_from_hf(hf)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("phi3", "gemma3_text")])
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
    scales = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert ropes.pop() == model_config.Rope("llama3", 5e5, original_max_position=16, **scales)


def test_gemma_3_has_a_rope_for_each_kind_of_layer_under_old_and_new_keys():
    hf = {k: v for k, v in cases.MODELS["gemma3_old_keys"].items() if not k.startswith("rope_")}
    linear = {"rope_type": "linear", "factor": 8.0}
    spellings = [
        {"rope_theta": 5e5, "rope_local_base_freq": 20.0, "rope_scaling": linear},
        {
            "rope_parameters": {
                "full_attention": {"rope_theta": 5e5} | linear,
                "sliding_attention": {"rope_theta": 20.0, "rope_type": "default"},
            }
        },
    ]
    for spelling in spellings:
        config = family("gemma3_text").config_from_hf(hf | spelling)
        assert config.rope == model_config.Rope("linear", 5e5, factor=8.0)
        assert config.second_rope == model_config.Rope("default", 20.0)
        assert config.second_rope_layers == tuple(window > 0 for window in config.windows) == (True, False, True)
    with pytest.raises(UserError, match="rope_parameters"):
        family("gemma3_text").config_from_hf(hf | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})


@pytest.mark.parametrize("name", ["su", "yarn", "longrope"])
def test_phi_3_reads_longrope_under_its_older_names(name):
    lists = {key: value for key, value in cases.MODELS["phi3_longrope"]["rope_scaling"].items() if "factor" in key}
    rope = family("phi3").config_from_hf(cases.MODELS["phi3_longrope"] | {"rope_scaling": {"type": name} | lists}).rope
    assert (rope.kind, rope.original_max_position, rope.partial) == ("longrope", 8, 0.75)
    assert rope.attention_factor == pytest.approx((1 + np.log(64 / 8) / np.log(8)) ** 0.5)


@pytest.mark.parametrize(("key", "value"), [("mlp_only_layers", [0]), ("decoder_sparse_step", 2)])
def test_a_mixture_with_dense_layers_is_refused_by_name(key, value):
    with pytest.raises(UserError, match=key):
        family("qwen3_moe").config_from_hf(cases.MODELS["qwen3_moe_plain"] | {key: value})


@pytest.mark.parametrize("name", EXPERTS)
def test_more_experts_a_token_than_there_are_is_an_error(name):
    with pytest.raises(UserError, match="num_experts_per_tok=9"):
        family(name).config_from_hf(case_of(name) | {"num_experts_per_tok": 9})


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
    assert windows["gemma2_capped"] == (5, 0, 5)
    assert windows["gemma3_new_keys"] == (4, 4, 0)
    assert windows["smollm3_windows_biases"] == (0, 4, 4)
    absent = {k: v for k, v in cases.MODELS["mistral_full"].items() if k != "sliding_window"}
    assert family("mistral").config_from_hf(absent).windows == (4096,) * 3  # transformers' default, not "none"


def test_an_unknown_model_type_is_an_error_that_lists_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "lama"}))
    with pytest.raises(UserError, match=r"lama.*Did you mean 'llama'.*mistral") as error:
        hf_import.read_config(tmp_path)
    assert "\n" not in str(error.value)
