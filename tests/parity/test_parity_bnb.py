"""The four-bit formats against bitsandbytes itself."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.checkpoint import hf_import
from ftjax.quant import convert
from ftjax.quant import format as fmt
from tests.golden import cases
from tests.parity import peers

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
functional = pytest.importorskip("bitsandbytes.functional")

SHAPES = [(64, 128), (256, 64), (48, 192)]


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_codes_scales_and_dequantised_weights_are_equal_to_the_bit(kind, scale):
    for seed, (rows, columns) in enumerate(SHAPES * 3):
        weight = (np.random.default_rng(seed).standard_normal((rows, columns)) * scale).astype(np.float32)
        packed, state = functional.quantize_4bit(torch.tensor(weight), blocksize=64, quant_type=kind)
        node = convert.module(kind).quantize(jnp.asarray(weight.T), group=64)
        theirs = packed.numpy().reshape(rows, columns // 2).T
        codes, wanted = (np.asarray(fmt.unpack(jnp.asarray(c))) for c in (node.codes, theirs))
        same = (codes == wanted) | (kind == "fp4") & np.isin(codes, (0, 8)) & np.isin(wanted, (0, 8))  # 0 and -0
        assert same.all(), (kind, scale, seed)
        np.testing.assert_array_equal(np.asarray(node.scales).T.reshape(-1), state.absmax.numpy())
        dense = functional.dequantize_4bit(packed, state).numpy()
        np.testing.assert_array_equal(np.asarray(node.dequantize(jnp.float32)).T, dense)


def test_double_quantisation_has_the_error_of_theirs():
    weight = np.random.default_rng(0).standard_normal((1024, 512)).astype(np.float32)
    packed, state = functional.quantize_4bit(
        torch.tensor(weight), blocksize=64, quant_type="nf4", compress_statistics=True
    )
    theirs = functional.dequantize_4bit(packed, state).numpy() - weight
    ours = (
        np.asarray(convert.module("nf4-dq").quantize(jnp.asarray(weight.T), group=64).dequantize(jnp.float32)).T
        - weight
    )
    assert np.mean(ours**2) == pytest.approx(np.mean(theirs**2), rel=1e-3)


def dequantised(weight):
    """Returns a weight as the flat numbers that its blocks are of.

    bitsandbytes' AVX-512 kernel begins a block at each row, although its blocks run over the ends of rows (0.50.2: 96
    inputs in blocks of 64); of one long row it and the others give the same.
    """
    state = copy.copy(weight.quant_state)
    shape, state.shape = state.shape, torch.Size((1, state.shape.numel()))
    return functional.dequantize_4bit(weight.data, state).reshape(shape).numpy()


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_folder_that_transformers_saved_in_four_bits_is_read_to_the_bit(kind, nested, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = cases.read("llama_plain")["config"] | {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
    }
    config |= {"num_key_value_heads": 2, "head_dim": 16}
    peers.model(config).save_pretrained(tmp_path / "dense")
    asked = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=nested, bnb_4bit_compute_dtype="float32"
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "dense", quantization_config=asked, dtype=torch.float32, device_map="cpu"
    )
    model.save_pretrained(tmp_path / "packed")
    made, base = hf_import.load(tmp_path / "packed")
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit":
            _, _, layer, _, leaf = name.split(".")
            dense = dequantised(module.weight)
            ours = np.asarray(getattr(base.blocks, leaf).dequantize(jnp.float32))[int(layer)].T
            np.testing.assert_array_equal(ours, dense, err_msg=name)
    assert made.n_layers == config["num_hidden_layers"]
