"""Training through what single families have: caps, norms after the layers, experts, two rotary tables."""

import dataclasses

from golden import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax.adapters import attach, lora
from ftjax.checkpoint import hf_export, hf_import
from ftjax.models import decoder, params
from ftjax.models.families import gemma3_text
from ftjax.quant import int8

FAST = {"xla_backend_optimization_level": 0}  # of compiling, which is most of the time here; the numbers are the same


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    found = {}

    def load(case):
        if case not in found:
            folder = cases.unpack(case, tmp_path_factory.mktemp(case))
            found[case] = (folder, *hf_import.load(folder))
        return found[case]

    return load


def batch():
    given = cases.inputs()
    tokens, segments = given["packed"], given["packed_segments"]
    return tokens, np.roll(tokens, -1, axis=1), (segments == np.roll(segments, -1, axis=1)).astype(np.float32), segments


def through_logps(params, config):
    tokens, targets, weights, segments = batch()
    return jnp.sum(decoder.logps(params, tokens, targets, weights, config, None, segments).logps)


def through_logits(params, config):
    tokens, targets, weights, segments = batch()
    logps = jax.nn.log_softmax(decoder.logits(params, tokens, config, None, segments))
    return jnp.sum(jnp.take_along_axis(logps, targets[..., None], axis=-1)[..., 0] * weights)


gradient = jax.jit(jax.grad(through_logps), static_argnums=1, compiler_options=FAST)


@pytest.mark.parametrize("case", ["gemma2_capped", "mixtral_window"])
def test_gradients_of_all_weights_are_those_of_the_plain_logits(case, loaded):
    _, config, base = loaded(case)
    plain = jax.jit(jax.grad(through_logits), static_argnums=1, compiler_options=FAST)
    mine, book = gradient(base, config), plain(base, config)
    for path, one in jax.tree_util.tree_flatten_with_path(mine)[0]:
        assert np.isfinite(one).all(), path
        assert np.abs(one).max() > 1e-3, path
    for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(book), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_recomputing_all_but_the_matmuls_changes_no_gradient_of_experts(loaded):
    _, config, base = loaded("mixtral_window")
    again = gradient(base, dataclasses.replace(config, remat="dots"))
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(gradient(base, config)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_two_rotary_tables_are_not_kept_once_a_layer():
    """The backward pass keeps the number of each layer's table; copies of cosine and sine would be [L, B, T, half]."""
    config = gemma3_text.config_from_hf(cases.MODELS["gemma3_old_keys"] | {"num_hidden_layers": 7})
    shapes = params.abstract(config, "float32")
    tokens = jax.ShapeDtypeStruct((3, 20), jnp.int32)
    _, pull = jax.eval_shape(lambda p, t: jax.vjp(lambda p: decoder.hidden(p, t, config), p), shapes, tokens)
    assert (7, 3, 20, 4) not in {leaf.shape for leaf in jax.tree.leaves(pull)}
    assert (7, 3, 20, 4, 8) in {leaf.shape for leaf in jax.tree.leaves(pull)}  # what it does keep: q, for one


def test_adapters_on_experts_in_few_bits_train_through_the_scan_and_nothing_else_does(loaded):
    _, config, base = loaded("mixtral_window")
    blocks = base.blocks.replace(gate_proj=int8.quantize(base.blocks.gate_proj, group=0))
    base = base.replace(blocks=blocks)
    draw = lambda *shape: np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32) / 3
    make = lambda shape: lora.LoRA(
        a=draw(*shape[:-1], 2), b=draw(*shape[:-2], 2, shape[-1]), scale=0.5, dropout=0.0
    )  # fmt: skip
    hollow = jax.tree.map(lambda _: None, base, is_leaf=attach.is_weight)
    nodes = {name: make(getattr(base.blocks, name).shape) for name in ("gate_proj", "down_proj", "q_proj")}
    adapters = hollow.replace(blocks=hollow.blocks.replace(**nodes))
    loss = lambda adapters, base: through_logps(attach.attach(base, adapters), config)
    grad = jax.jit(jax.grad(loss), compiler_options=FAST)(adapters, base)
    sizes = {jax.tree_util.keystr(p): float(np.abs(g).max()) for p, g in jax.tree_util.tree_flatten_with_path(grad)[0]}
    assert len(sizes) == 6
    assert min(sizes.values()) > 1e-3


@pytest.mark.parametrize("case", ["gemma2_capped", "phi3_longrope", "mixtral_window", "qwen3_moe_plain"])
def test_what_was_read_is_written_back_to_the_bit(case, loaded, tmp_path):
    folder, config, base = loaded(case)
    hf_export.save(tmp_path / "out", base, config, folder)
    again, same = hf_import.load(tmp_path / "out")
    assert again == config
    for one, other in zip(jax.tree.leaves(same), jax.tree.leaves(base), strict=True):
        np.testing.assert_array_equal(one, other)
    first, second = (safetensors_numpy.load_file(f / "model.safetensors") for f in (folder, tmp_path / "out"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)


def test_experts_are_loaded_into_few_bits(loaded):
    folder, _, base = loaded("mixtral_window")
    _, packed = hf_import.load(folder, quant="int8")
    assert packed.blocks.down_proj.shape == base.blocks.down_proj.shape
    error = np.abs(packed.blocks.down_proj.dequantize(jnp.float32) - base.blocks.down_proj).max()
    assert 0 < error < np.abs(base.blocks.down_proj).max() / 127
