"""bitsandbytes' four-bit folders, read without bitsandbytes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax.checkpoint import hf_import
from ftjax.errors import UserError
from ftjax.models import decoder, params
from ftjax.quant import convert, fp4, nf4, nf4_dq
from ftjax.quant import format as fmt

CONFIG = {
    "model_type": "llama", "vocab_size": 32, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "tie_word_embeddings": True,
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}  # fmt: skip
SHAPES = {
    "self_attn.q_proj": (64, 64), "self_attn.k_proj": (64, 64), "self_attn.v_proj": (64, 64),
    "self_attn.o_proj": (64, 64), "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96),
}  # fmt: skip


def stored(weight, kind, *, nested):
    """The tensors that bitsandbytes writes for a weight [out, in], made from its description: flat blocks of 64."""
    flat = weight.reshape(-1, 64)
    absmax = np.abs(flat).max(axis=1)
    module = {"nf4": nf4, "fp4": fp4}[kind]
    made = module.quantize(jnp.asarray(flat.T), group=64)  # each block a column of its own
    codes = np.asarray(fmt.unpack(made.codes)).T.reshape(-1)
    facts = {"quant_type": kind, "blocksize": 64, "dtype": "float32", "shape": list(weight.shape)}
    parts = {"": (codes[0::2] << 4 | codes[1::2])[:, None], ".quant_map": np.asarray(module.LEVELS)}
    if nested:
        offset = absmax.mean(dtype=np.float32)
        blocks = np.pad(absmax - offset, (0, -len(absmax) % 256)).reshape(-1, 256)
        outer = np.abs(blocks).max(axis=1)
        table = nf4_dq.dynamic_map()
        scales = np.abs(table[None] - ((absmax - offset) / np.repeat(outer, 256)[: len(absmax)])[:, None]).argmin(1)
        facts |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)}
        parts |= {".absmax": scales.astype(np.uint8), ".nested_absmax": outer, ".nested_quant_map": table}
        absmax = table[scales] * np.repeat(outer, 256)[: len(absmax)] + offset
    else:
        parts[".absmax"] = absmax
    state = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    dense = (np.asarray(module.LEVELS)[codes].reshape(-1, 64) * absmax[:, None]).reshape(weight.shape)
    return parts | {f".quant_state.bitsandbytes__{kind}": state}, dense


@pytest.fixture
def folder(tmp_path):
    def write(kind="nf4", *, nested=True, change=dict.copy, config=CONFIG):
        rng, tensors, dense = np.random.default_rng(0), {}, {}
        tensors["model.embed_tokens.weight"] = rng.standard_normal((32, 64)).astype(np.float32)
        tensors["model.norm.weight"] = np.ones(64, np.float32)
        for layer in range(2):
            for name in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"model.layers.{layer}.{name}.weight"] = np.ones(64, np.float32)
            for name, shape in SHAPES.items():
                full = f"model.layers.{layer}.{name}.weight"
                parts, dense[full] = stored(rng.standard_normal(shape).astype(np.float32) / 8, kind, nested=nested)
                tensors |= {f"{full}{end}": part for end, part in parts.items()}
        change(tensors)
        (tmp_path / "config.json").write_text(json.dumps(config))
        safetensors_numpy.save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path, dense

    return write


@pytest.mark.parametrize(("kind", "nested"), [("nf4", True), ("nf4", False), ("fp4", False)])
def test_the_weights_are_bitsandbytes_to_the_bit_and_stay_in_four_bits(kind, nested, folder):
    path, dense = folder(kind, nested=nested)
    config, base = hf_import.load(path)
    for name, wanted in dense.items():
        _, _, layer, _, leaf, _ = name.split(".")
        node = getattr(base.blocks, leaf)
        assert node.codes.dtype == jnp.uint8
        np.testing.assert_array_equal(node.dequantize(jnp.float32)[int(layer)].T, wanted)
    whole = jax.tree.map(
        lambda n: n.dequantize(jnp.float32) if fmt.is_quantized(n) else n, base, is_leaf=fmt.is_quantized
    )
    tokens = jnp.arange(6)[None]
    np.testing.assert_allclose(
        decoder.logits(base, tokens, config), decoder.logits(whole, tokens, config), atol=1e-5
    )  # fmt: skip


def test_a_real_folder_gives_the_logits_that_transformers_had(shared_data):
    source = shared_data / "stories260k_bnb_nf4"
    config, base = hf_import.load(source)
    dense = safetensors_numpy.load_file(source / "dequantized.safetensors")
    for name, wanted in dense.items():
        _, _, layer, _, leaf, _ = name.split(".")
        np.testing.assert_array_equal(getattr(base.blocks, leaf).dequantize(jnp.float32)[int(layer)].T, wanted)
    for text in json.loads((source / "golden.json").read_text())["texts"]:
        logits = np.asarray(decoder.logits(base, jnp.asarray([text["ids"]]), config))[0]
        np.testing.assert_allclose(logits[-1], text["last_logits"], atol=1e-4)
        np.testing.assert_array_equal(logits.argmax(-1), text["argmax_per_position"])


def test_its_plan_is_what_loading_makes_and_no_other_may_be_asked_for(folder):
    path, _ = folder()
    found = hf_import.plan(path, "none", leaves=hf_import.QUANTISED, group=0)
    assert found["blocks.q_proj"] == convert.Few("nf4", 64)
    config, base = hf_import.load(path)
    planned = convert.abstract_tree(params.abstract(config, "float32"), found)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), planned) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), base
    )
    with pytest.raises(UserError, match="is in bitsandbytes' four bits; load it with quant='none'"):
        hf_import.load(path, {"blocks.q_proj": convert.Few("int4", 32)})


def test_a_part_that_is_missing_is_named(folder):
    path, _ = folder(change=lambda t: t.pop("model.layers.1.mlp.up_proj.weight.nested_absmax"))
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight\.nested_absmax is missing"):
        hf_import.load(path)


def test_a_part_that_is_misshapen_is_named(folder):
    name = "model.layers.0.self_attn.q_proj.weight.absmax"
    path, _ = folder(change=lambda t: t.update({name: t[name][:-1]}))
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.q_proj\.weight: 2048 bytes and 63 scales do not hold"):
        hf_import.load(path)


def test_eight_bits_and_requantising_are_refused(folder):
    path, _ = folder()
    with pytest.raises(UserError, match="is in bitsandbytes' four bits; load it with quant='none'"):
        hf_import.load(path, quant="int4", group=32)
    eight = CONFIG | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    path, _ = folder(config=eight)
    with pytest.raises(UserError, match="bitsandbytes in 8 bits is not implemented"):
        hf_import.load(path)
