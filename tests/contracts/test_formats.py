"""Every quantisation format, the day its file appears."""

import functools

import jax
from jax._src.ad_checkpoint import saved_residuals  # what print_saved_residuals prints
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
from ftjax import tree
from ftjax.adapters import attach
from ftjax.checkpoint import store
from ftjax.errors import UserError
from ftjax.models import decoder
from ftjax.nn import embedding, matmul
from ftjax.quant import convert
from ftjax.quant import format as fmt

# Mean squared error on N(0, 1), in the format's own groups: measured on 16 million numbers, to 1 %.
ERROR = {"nf4": 0.00846, "nf4-dq": 0.00846, "fp4": 0.01487, "int4": 0.00901, "int4-asym": 0.00830}
SMALLER = {"int8": 8e-5, "fp8": 7.5e-4}
each_format = pytest.mark.parametrize("name", convert.formats())
BLOCKS = r"blocks\.\w+_proj"


def group(name, size):
    """The size where the format has groups."""
    return size if convert.module(name).GROUP else 0


@functools.lru_cache
def program(name, size):
    return jax.jit(functools.partial(convert.module(name).quantize, group=convert.group_of(name, group(name, size))))


def quantized(name, weight, size=0):
    return program(name, size)(weight)


@pytest.fixture(scope="module")
def normal():
    return jax.random.normal(jax.random.key(0), (4096, 256))


@each_format
def test_the_error_on_normal_weights_is_what_the_format_promises(name, normal):
    error = jnp.mean((quantized(name, normal).dequantize(jnp.float32) - normal) ** 2) / jnp.var(normal)
    if name in ERROR:
        assert float(error) == pytest.approx(ERROR[name], rel=0.01)
    else:
        assert float(error) < SMALLER[name]


@each_format
def test_the_bits_a_parameter_are_those_that_are_allocated(name, normal):
    module, node = convert.module(name), quantized(name, normal)
    per_channel = 0 if module.GROUP else 32 / normal.shape[0]
    offset = 32 / normal.size if name == "nf4-dq" else 0.0
    assert tree.nbytes(node) * 8 / normal.size == module.BITS + per_channel + offset


@each_format
def test_zero_stays_zero_and_tiny_huge_and_empty_groups_are_right(name):
    weight = jax.random.normal(jax.random.key(1), (256, 64)).at[::3].set(0.0)
    weight = weight.at[:64].multiply(1e-30).at[64:128].set(0.0).at[128:192].multiply(1e30)
    if not convert.module(name).GROUP or name == "nf4-dq":  # one scale, or scales in 8 bits: sizes that differ so much
        weight = jax.random.normal(jax.random.key(1), (256, 64)).at[::3].set(0.0).at[:, 2].set(0.0)  # share nothing
    dense = quantized(name, weight).dequantize(jnp.float32)
    assert jnp.all(jnp.isfinite(dense))
    np.testing.assert_array_equal(dense[weight == 0], 0.0)
    size = jnp.max(jnp.abs(weight.reshape(4, 64, 64)), axis=1, keepdims=True)
    error = jnp.abs(dense - weight).reshape(4, 64, 64)
    assert bool(jnp.all(error <= 0.21 * size + (0.05 if name == "nf4-dq" else 0.0)))


@each_format
def test_a_layer_axis_changes_nothing_and_a_scan_slices_it(name):
    weight = jax.random.normal(jax.random.key(2), (2, 256, 64))
    stacked = quantized(name, weight, 32)
    assert stacked.shape == weight.shape
    _, seen = jax.lax.scan(lambda c, node: (c, node.dequantize(jnp.float32)), None, stacked)
    alone = jnp.stack([quantized(name, layer, 32).dequantize(jnp.float32) for layer in weight])
    np.testing.assert_allclose(seen, alone, atol=1e-6)
    np.testing.assert_allclose(seen, stacked.dequantize(jnp.float32), atol=1e-6)


@each_format
def test_jit_and_the_tensor_by_tensor_path_give_the_same_bits(name):
    weight = jax.random.normal(jax.random.key(2), (2, 256, 64))
    size = group(name, 32)
    tree_of = convert.quantize({"blocks": {"q_proj": weight}}, name, leaves=r".*", group=size)
    made = program(name, 32)
    for layer in range(2):
        alone = jax.tree.leaves(made(weight[layer]))
        for whole, part in zip(jax.tree.leaves(tree_of["blocks"]["q_proj"]), alone, strict=True):
            np.testing.assert_array_equal(whole[layer], part)


@pytest.mark.parametrize(("name", "remat"), [*((name, "dots") for name in convert.formats()), ("nf4-dq", "none")])
def test_gradients_are_those_on_the_dequantised_weights(name, remat, tiny_config, tiny_params, sft_case, tiny_batch):
    base = convert.quantize(tiny_params, name, leaves=BLOCKS, group=group(name, 32))
    dense = lambda leaf: leaf.dequantize(jnp.float32) if fmt.is_quantized(leaf) else leaf
    whole = jax.tree.map(dense, base, is_leaf=fmt.is_quantized)
    adapters = jax.tree.map(lambda x: x + 0.01, sft_case().state.trainable)
    config, b = tiny_config(remat=remat), tiny_batch

    def loss(adapters, base):
        model = attach.attach(base, adapters)
        out = decoder.logps(model, b.tokens, b.targets, b.weights, config, b.positions, b.segments)
        return out.logps.sum()

    run = jax.jit(jax.value_and_grad(loss))
    (value, grads), (wanted, expected) = run(adapters, base), run(adapters, whole)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, atol=1e-5 * float(jnp.abs(e).max())), grads, expected)


@each_format
def test_no_array_of_the_dense_shape_is_kept_for_the_backward_pass(name):
    weight = jax.random.normal(jax.random.key(3), (256, 64))
    node = quantized(name, weight, 32)
    found = saved_residuals(lambda x: matmul.matmul(x, node).sum(), jnp.ones((4, 256)))
    floats = [aval for aval, _ in found if aval.shape == weight.shape and aval.dtype in (jnp.float32, jnp.bfloat16)]
    assert not floats


MIXED = (2, 2, 2)
SPLITS = [*((name, MIXED) for name in convert.formats()), ("nf4-dq", (1, 8, 1)), ("nf4-dq", (1, 1, 8))]


@pytest.mark.parametrize(("name", "sizes"), SPLITS)
def test_one_spec_fits_every_array_of_a_node_and_the_numbers_stay(name, sizes):
    mesh = meshes.make(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])
    node = quantized(name, jax.random.normal(jax.random.key(4), (2, 256, 64)), 32)
    placed = jax.device_put(node, meshes.leaf_shardings(mesh, ("L", "D", "F"), node))
    assert not placed.codes.sharding.is_fully_replicated
    x = jax.random.normal(jax.random.key(5), (4, 256))
    with jax.set_mesh(mesh):
        run = jax.jit(lambda n: matmul.matmul(x, jax.tree.map(lambda leaf: leaf[0], n)))
        np.testing.assert_allclose(run(placed), run(node), atol=1e-4)


def test_a_group_that_straddles_a_shard_is_not_split():
    mesh = meshes.make(data=1, fsdp=8, tensor=1)
    node = quantized("nf4", jax.random.normal(jax.random.key(4), (2, 128, 64)), 64)  # 2 groups for 8 devices
    assert all(s.spec[1] is None for s in jax.tree.leaves(meshes.leaf_shardings(mesh, ("L", "D", "F"), node)))


@each_format
@pytest.mark.parametrize("rank", [0, 4])
def test_a_lookup_is_that_of_the_dense_table_and_makes_no_table_dense(name, rank):
    table = jax.random.normal(jax.random.key(3), (512, 96))
    node = convert.matrix(table, convert.Few(name, group(name, 32), rank=rank, iterations=min(rank, 1)), where="table")
    tokens = jnp.array([[0, 1, 31], [32, 63, 511]])
    expected = node.dequantize(jnp.float32)[tokens]
    np.testing.assert_allclose(embedding.embed(node, tokens), expected, rtol=0, atol=1e-6 if rank else 0)
    made = jax.make_jaxpr(embedding.embed)(node, tokens)
    assert max(var.aval.size for eqn in made.eqns for var in eqn.outvars) < table.size


@each_format
def test_it_is_saved_and_restored_bit_for_bit(name, tmp_path):
    node = quantized(name, jax.random.normal(jax.random.key(6), (2, 256, 64)), 32)
    kept = store.Store(tmp_path / "store", 1, ("eval_loss", "min"))
    kept.save(1, {"node": node}, {})
    restored, _ = store.Store(tmp_path / "store", 1, ("eval_loss", "min")).restore(None, {"node": node})
    jax.tree.map(np.testing.assert_array_equal, restored["node"], node)


@pytest.mark.parametrize("name", ["nf4", "int4", "int4-asym", "fp4", "nf4-dq"])
def test_a_group_that_does_not_divide_is_refused_with_the_tensor_and_the_sizes_that_would(name):
    with pytest.raises(UserError, match=r"blocks\.up_proj \(96, 8\): 96 input rows .* groups of 64; .* 16, 32, 48, 96"):
        convert.plan(name, {"blocks.up_proj": (2, 96, 8)}, r".*", 64)


def test_numbers_that_are_not_finite_are_refused_with_their_place():
    weight = np.ones((64, 4), np.float32)
    weight[5, 3] = np.nan
    with pytest.raises(UserError, match=r"file: layer: \[5, 3\] is nan"):
        convert.matrix(weight, convert.Few("nf4", 64), where="file: layer")


def test_a_regex_that_matches_nothing_or_the_embedding_is_refused():
    shapes = {"embed_tokens": (64, 8), "blocks.q_proj": (2, 64, 8), "norm": (8,)}
    with pytest.raises(UserError, match=r"match no weight; there are embed_tokens, blocks\.q_proj$"):
        convert.plan("nf4", shapes, "norm", 0)
    with pytest.raises(UserError, match="embed_tokens, which stays dense"):
        convert.plan("nf4", shapes, ".*", 0)


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'nf4-dq'"):
        convert.module("nf4dq")


def test_nf4_and_fp4_take_the_codes_of_bitsandbytes():
    line = jnp.linspace(-1, 1, 64, dtype=jnp.float32)[:, None]
    shown = lambda name: "".join(f"{c:x}" for c in np.asarray(fmt.unpack(quantized(name, line).codes))[:, 0])
    assert shown("nf4") == "00000111111112222233344445556667788899aaabbbccccddddeeeeeeefffff"
    assert shown("fp4") == "bbbbbbaaaaaaaadddddccccffeeee99911166667744445555522222222333333"
    weight = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    packed = np.asarray(quantized("nf4", jnp.asarray(weight.T)).codes).T.ravel()
    assert packed[:16].tobytes().hex() == "86a859dc42470624569c6d49b8435836"
    assert np.all(np.asarray(quantized("nf4", jnp.zeros((64, 2))).codes) == 0x77)


def test_a_tie_at_a_threshold_takes_the_lower_code():
    from ftjax.quant import nf4

    codes = fmt.count_below(jnp.asarray(np.append(nf4.THRESHOLDS, np.float32(1))), nf4.THRESHOLDS)
    np.testing.assert_array_equal(codes, np.arange(16))


def test_double_quantisation_has_the_offset_and_the_error_of_bitsandbytes():
    weight = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    node = quantized("nf4-dq", jnp.asarray(weight.T))
    assert float(node.offset[0, 0]) == pytest.approx(2.606011390686035, abs=1e-6)
    assert float(jnp.abs(node.dequantize(jnp.float32).T - weight).mean()) == pytest.approx(0.0728857, abs=2e-5)


def test_the_dynamic_map_is_that_of_bitsandbytes():
    from ftjax.quant import nf4_dq

    table = nf4_dq.dynamic_map()
    assert len(table) == 256
    assert table[127] == 0
    np.testing.assert_allclose(
        [table[0], table[-2], table[-1]], [-0.992968738079071, 0.992968738079071, 1.0], rtol=1e-7
    )
    assert float(table.sum()) == pytest.approx(0.9999996, abs=1e-5)
