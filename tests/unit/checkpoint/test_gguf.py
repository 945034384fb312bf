"""GGUF files give what the same weights give through a Hugging Face folder, or are refused by name."""

import importlib
import json
import math
import tracemalloc
import warnings

import gguf_cases
from golden import cases
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax import lookup, tree
from ftjax.checkpoint import hf_import
from ftjax.data import gguf_file
from ftjax.errors import UserError
from ftjax.models import decoder, params
from ftjax.models.families import llama

gguf = gguf_cases.gguf

SAME = ("llama_plain", "llama_linear_biases", "mistral_full", "mistral_window", "qwen2_plain", "qwen3_plain")
COMPUTED = ("llama_linear_biases", "mistral_full")  # a Mistral without a window comes as a Llama
logits = jax.jit(decoder.logits, static_argnums=2)
Q0 = "blk.0.attn_q.weight"


def golden(case):
    found = cases.read(case)
    return found["config"], found["tensors"]


def written(path, case="llama_plain", keys=None, kinds=None, raw=None, drop=(), extra=None):
    """Writes a golden model as a file with some things changed."""
    config, tensors = golden(case)
    architecture = gguf_cases.ARCHITECTURES[config["model_type"]]
    arrays = gguf_cases.tensors(config, tensors) | (extra or {})
    arrays = {name: value for name, value in arrays.items() if name not in drop}
    metadata = gguf_cases.metadata(config, architecture) | (keys or {})
    return gguf_cases.write(path, architecture, metadata, arrays, kinds=kinds, raw=raw)


def refused(path, match):
    with pytest.raises(UserError, match=match) as error:
        hf_import.load(path)
    assert "\n" not in str(error.value)
    assert str(path.name) in str(error.value)


@pytest.mark.parametrize("case", SAME)
def test_a_file_gives_the_logits_of_the_folder_with_the_same_weights(case, tmp_path):
    config, tensors = golden(case)
    file = gguf_cases.of_folder(tmp_path / "model.gguf", config, tensors)
    found_config, found = hf_import.load(file)
    wanted_config, wanted = hf_import.load(cases.unpack(case, tmp_path / "folder"))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    if case in COMPUTED:  # where the tree and the config are equal, logits are
        tokens = cases.inputs()["plain"]
        got, expected = logits(found, tokens, found_config), logits(wanted, tokens, wanted_config)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    else:
        assert found_config == wanted_config


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
def test_gemmas_caps_windows_norms_and_second_rope_come_through_a_file(kind, tmp_path):
    config, tensors = gemma(kind)
    file = gguf_cases.of_folder(tmp_path / "model.gguf", config, tensors)
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors_numpy.save_file(tensors, tmp_path / "model.safetensors")
    found, wanted = hf_import.load(file), hf_import.load(tmp_path)
    assert found[0] == wanted[0]
    # (1 + w) - 1 rounds to the last place of a number near one.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1.2e-7), found[1], wanted[1])
    tokens = cases.inputs()["plain"]
    got, expected = (np.asarray(logits(base, tokens, found[0])) for base in (found[1], wanted[1]))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def gemma(kind):
    """Returns config.json and tensors of a random Gemma."""
    second = kind == "gemma3_text"
    config = cases.MODELS["llama_plain"] | {
        "model_type": kind,
        "num_hidden_layers": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 16,
        "sliding_window": 5,
        "final_logit_softcapping": None if second else 3.0,
        "attn_logit_softcapping": None if second else 2.0,
        "tie_word_embeddings": True,
        "rope_theta": 1e6 if second else 100.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0} if second else None,
    }
    module = importlib.import_module(f"ftjax.models.families.{kind}")
    parsed = module.config_from_hf(config)
    shapes = tree.paths(params.abstract(parsed, "float32"))
    rng = np.random.default_rng(3)
    tensors = {}
    for name, place in module.names_from_hf(parsed).items():
        shape = shapes[place.path].shape[0 if place.layer is None else 1 :]
        tensors[name] = cases.rounded(rng, shape[::-1] if place.transpose else shape, 0.1).astype(np.float32)
    return config, tensors


def test_rows_of_q_and_k_are_put_back_as_they_were(tmp_path):
    config, tensors = golden("llama_linear_biases")
    _, base = hf_import.load(gguf_cases.of_folder(tmp_path / "model.gguf", config, tensors))
    for letter in "qkvo":
        name = f"model.layers.1.self_attn.{letter}_proj"
        np.testing.assert_array_equal(getattr(base.blocks, f"{letter}_proj")[1].T, tensors[f"{name}.weight"])
        np.testing.assert_array_equal(getattr(base.blocks, f"{letter}_bias")[1], tensors[f"{name}.bias"])


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_every_stored_type_is_what_the_package_dequantises(kind, tmp_path):
    name = "blk.1.ffn_up.weight"
    file = written(tmp_path / "model.gguf", kinds={name: kind})
    number = gguf.GGMLQuantizationType[kind]
    exact = golden("llama_plain")[1]["model.layers.1.mlp.up_proj.weight"].astype(np.float32)
    stored = gguf.quants.quantize(exact, number)
    _, base = hf_import.load(file)
    np.testing.assert_array_equal(base.blocks.up_proj[1].T, gguf.quants.dequantize(stored, number))
    assert np.abs(np.asarray(base.blocks.up_proj[1]).T - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_blocks_of_256_are_what_the_package_dequantises(kind, tmp_path):
    """The package writes none of these, so the bytes are random; halves are kept small, or they would be infinite."""
    number = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[number][1]
    raw = np.random.default_rng(0).integers(0, 60, (8, size), dtype=np.uint8)
    path = gguf_cases.write(
        tmp_path / "one.gguf", "llama", {}, {"x": np.zeros((8, 256))}, kinds={"x": kind}, raw={"x": raw}
    )
    from ftjax.checkpoint import gguf as ours

    tensor = gguf_file.read(path).tensors["x"]
    assert tensor.shape == (8, 256)
    found = ours.read(ours.Entry(path, "x", tensor.shape, tensor, 0, 0.0))
    np.testing.assert_array_equal(found, gguf.quants.dequantize(raw, number))
    assert np.isfinite(found).all()
    assert np.unique(found).size > 100


def test_the_package_decodes_q8_0_and_q4_1_as_they_are_published():
    """Q8_0 is half d, 32 int8, w = q d; Q4_1 is half d, half m, 16 bytes of which the low nibbles come first."""
    values = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    blocks = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0).reshape(-1, 34)
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    found = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(found, blocks[:, 2:].view(np.int8) * d)
    blocks = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_1).reshape(-1, 20)
    d, m = (blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    codes = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    np.testing.assert_array_equal(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q4_1), codes * d + m)


def test_a_file_loads_into_few_bits_and_into_bfloat16(tmp_path):
    file = written(tmp_path / "model.gguf")
    _, exact = hf_import.load(file)
    config, half = hf_import.load(file, dtype="bfloat16")
    assert config.dtype == "bfloat16"
    np.testing.assert_array_equal(half.blocks.up_proj, exact.blocks.up_proj.astype("bfloat16"))
    _, packed = hf_import.load(file, quant="int8", leaves=r"blocks\.up_proj")
    error = np.asarray(packed.blocks.up_proj.dequantize("float32")) - np.asarray(exact.blocks.up_proj)
    assert 0 < np.abs(error).max() < 0.02 * np.abs(exact.blocks.up_proj).max()


def test_the_peak_of_memory_is_the_result_and_one_tensor(tmp_path):
    """Six matrices of 16 MB in float32, 8 MB in the file, of which the package dequantises a part at a time."""
    config = cases.MODELS["llama_plain"] | {"hidden_size": 512, "intermediate_size": 8192, "num_hidden_layers": 2}
    parsed = params.abstract(llama.config_from_hf(config), "float32")
    shapes = tree.paths(parsed)
    arrays = {}
    for name, place in llama.names_from_hf(llama.config_from_hf(config)).items():
        shape = shapes[place.path].shape[0 if place.layer is None else 1 :]
        arrays[name] = np.ones(shape[::-1] if place.transpose else shape, np.float32)
    made = gguf_cases.tensors(config, arrays)
    kinds = {name: "F16" for name in made if "ffn" in name and "norm" not in name}
    file = gguf_cases.write(tmp_path / "model.gguf", "llama", gguf_cases.metadata(config, "llama"), made, kinds=kinds)
    del arrays, made
    hf_import.read_config(file)
    tracemalloc.start()
    try:
        _, base = hf_import.load(file)
        extra = tracemalloc.get_traced_memory()[1] - sum(leaf.nbytes for leaf in jax.tree.leaves(base))
    finally:
        tracemalloc.stop()
    assert extra < 16e6 + 8.4e6 + 13e6


def test_metadata_numbers_are_the_decimals_that_were_meant(tmp_path):
    config = hf_import.read_config(written(tmp_path / "model.gguf", keys={"llama.rope.freq_base": 500000.0}))
    assert (config.norm_eps, config.rope.theta) == (1e-5, 500000.0)


def llama3_divisors(theta, head_dim, factor, low, high, length):
    """Returns what llama.cpp's converter writes: what each frequency is divided by."""
    found = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (i / head_dim)
        smooth = (length / wavelength - low) / (high - low)
        inside = 1 / ((1 - smooth) / factor + smooth)
        found.append(1.0 if wavelength < length / high else factor if wavelength > length / low else inside)
    return np.array(found, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_llama_3_is_found_in_its_divisors(factor, tmp_path):
    keys = {"llama.rope.freq_base": 500000.0}
    extra = {"rope_freqs.weight": llama3_divisors(500000.0, 8, factor, 1, 4, 8192)}
    rope = hf_import.read_config(written(tmp_path / "model.gguf", keys=keys, extra=extra)).rope
    assert (rope.kind, rope.factor, rope.low_freq_factor, rope.high_freq_factor) == ("llama3", factor, 1.0, 4.0)
    assert rope.original_max_position == 8192
    hf_import.load(tmp_path / "model.gguf")


def test_divisors_of_another_rule_are_refused(tmp_path):
    extra = {"rope_freqs.weight": llama3_divisors(500000.0, 8, 4.0, 1, 4, 16)}
    refused(written(tmp_path / "model.gguf", keys={"llama.rope.freq_base": 500000.0}, extra=extra), "rope_freqs.weight")


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"llama.expert_count": 8}, "llama.expert_count=8 is not implemented"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count=4 is not implemented; known: heads of 8"),
        ({"llama.attention.value_length": 16}, "llama.attention.value_length=16"),
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type='longrope' is not implemented"),
        ({"llama.block_count": None}, "key 'llama.block_count' is missing"),
        ({"llama.attention.head_count_kv": [4, 4, 2]}, "llama.attention.head_count_kv"),
        ({"llama.logit_scale": 0.5}, "llama.logit_scale=0.5 is not implemented; refused"),
        ({"llama.vocab_size": 60}, "vocab_size=60, but token_embd.weight has 61 rows"),
        ({"tokenizer.ggml.tokens": [f"t{i}" for i in range(62)]}, "62 tokens, but token_embd.weight has 61 rows"),
        ({"llama.embedding_length": 64}, r"attn_norm.weight is \(32,\)|is \(61, 32\), but config.json asks"),
    ],
)
def test_a_key_that_is_missing_or_not_implemented_is_named(keys, match, tmp_path):
    refused(written(tmp_path / "model.gguf", keys=keys), match)


def test_an_unknown_architecture_is_named_with_the_known_ones(tmp_path):
    file = gguf_cases.write(tmp_path / "model.gguf", "lama", {}, {"token_embd.weight": np.ones((4, 32), np.float32)})
    refused(file, r"general.architecture='lama' is not implemented. Did you mean 'llama'.*qwen3")


def test_tensors_that_are_missing_or_left_over_are_named(tmp_path):
    refused(written(tmp_path / "a.gguf", drop=(Q0,)), f"missing: {Q0}")
    refused(written(tmp_path / "b.gguf", drop=("token_embd.weight",)), "missing: token_embd.weight")
    more = {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}
    refused(written(tmp_path / "c.gguf", extra=more), "no place for blk.0.attn_sinks.weight")


def test_a_tensor_of_a_type_that_cannot_be_decoded_is_named(tmp_path):
    whole = np.zeros((32, 32), np.int32)
    refused(written(tmp_path / "model.gguf", kinds={Q0: "I32"}, raw={Q0: whole}), f"{Q0} is stored as I32")


def test_a_tensor_of_a_type_that_the_package_does_not_know_is_refused(tmp_path):
    file = written(tmp_path / "model.gguf")
    raw = file.read_bytes()
    at = raw.index(Q0.encode()) + len(Q0) + 4 + 2 * 8  # dimensions, then the type
    file.write_bytes(raw[:at] + (99).to_bytes(4, "little") + raw[at + 4 :])
    refused(file, "tensor of type 99, which the package gguf does not know")


@pytest.mark.parametrize("keep", [0, 3, 20, 400, 0.5, -10])
def test_a_file_that_is_cut_short_is_an_error(keep, tmp_path):
    file = written(tmp_path / "model.gguf")
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * keep) if isinstance(keep, float) else keep])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of counts that overflow
        refused(file, "not a whole GGUF file|not a GGUF file")


def test_what_is_no_gguf_file_or_not_there_is_an_error(tmp_path):
    file = tmp_path / "model.gguf"
    safetensors_numpy.save_file({"x": np.ones(3, np.float32)}, file)
    refused(file, "not a GGUF file")
    refused(tmp_path / "modell.gguf", "did you mean 'model.gguf'")


def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    import sys

    file = written(tmp_path / "model.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"pip install 'ftjax\[gguf\]'"):
        hf_import.load(file)


def test_the_content_hash_follows_the_file(tmp_path):
    first, second = written(tmp_path / "a.gguf"), written(tmp_path / "b.gguf", keys={"general.name": "other"})
    assert hf_import.content_hash(first) == hf_import.content_hash(first) != hf_import.content_hash(second)


def test_every_architecture_is_one_that_the_package_knows():
    from ftjax.checkpoint import gguf as ours

    assert set(ours.ARCHITECTURES) <= set(gguf.MODEL_ARCH_NAMES.values())
    assert {kind for kind, _ in ours.ARCHITECTURES.values()} <= set(lookup.modules("ftjax.models.families"))
