import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftjax import mesh as meshes
from ftjax import tree
from ftjax.checkpoint.store import Store
from ftjax.models import params as model_params
from ftjax.quant import format as fmt
from ftjax.quant import nf4
from ftjax.train import adam, adam8, optimizer, state, step

INF = jnp.float32(jnp.inf)
RATE = optax.constant_schedule(1e-2)
HYPER = {"b1": 0.9, "b2": 0.999, "eps": 1e-6}


def chain(name):
    return optimizer.build(
        RATE, name=name, **HYPER, momentum=0.0, weight_decay=0.0, decay=".*", clip_norm=1.0, lora_plus_ratio=1.0
    )


def test_the_maps_are_those_of_bitsandbytes():
    """First and last of the signed one are golden; both have 2^k levels in decade k, the unsigned one 2^(k + 1)."""
    signed, unsigned = fmt.dynamic_map(signed=True), fmt.dynamic_map(signed=False)
    assert signed[0] == np.float32(-0.992968738079071)
    assert (signed[127], signed[-1], unsigned[0], unsigned[-1]) == (0, 1, 0, 1)
    for decade in range(7):
        inside = lambda table, k=decade: int(((table > 10.0 ** (k - 7)) & (table < 10.0 ** (k - 6))).sum())
        assert (inside(signed), inside(unsigned)) == (2**decade, 2 ** (decade + 1))
    assert len(set(signed.tolist())) == len(set(unsigned.tolist())) == 256


def test_codes_and_scales_are_those_of_bitsandbytes():
    weight = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    scales = np.asarray(nf4.quantize(jnp.asarray(weight.T), group=64).scales).T.ravel()
    codes, largest = fmt.to_dynamic(jnp.asarray(scales - scales.mean()), 0, signed=True)
    np.testing.assert_array_equal(codes[:8], [57, 53, 60, 208, 242, 42, 202, 248])
    np.testing.assert_allclose(largest, [1.4171, 1.8881, 2.1259, 1.3781], atol=5e-5)


@pytest.mark.parametrize(("shape", "axis"), [((700,), 0), ((2, 300, 16), 1), ((2, 16, 300), 2)])
def test_every_number_goes_to_the_nearest_level_of_its_own_block(shape, axis):
    x = jax.random.normal(jax.random.key(0), shape) * jnp.exp(3 * jax.random.normal(jax.random.key(1), shape))
    codes, largest = fmt.to_dynamic(x, axis, signed=True)
    assert codes.shape == shape
    assert largest.shape == tuple(-(-n // 256) if a == axis else n for a, n in enumerate(shape))
    table = fmt.dynamic_map(signed=True)
    rows = np.moveaxis(np.asarray(x), axis, -1).reshape(-1, shape[axis])
    read = np.moveaxis(np.asarray(fmt.from_dynamic(codes, largest, axis, signed=True)), axis, -1).reshape(rows.shape)
    for start in range(0, shape[axis], 256):
        block, back = rows[:, start : start + 256], read[:, start : start + 256]
        top = np.abs(block).max(axis=1, keepdims=True)
        best = np.abs(block[..., None] - top[..., None] * table).min(axis=-1)
        np.testing.assert_allclose(np.abs(block - back), best, atol=1e-6 * float(top.max()))


def test_a_negative_moment_keeps_its_sign_and_an_empty_block_stays_zero():
    x = jnp.zeros((32, 256)).at[0, :3].set(jnp.array([1.0, -1e-9, 1e-9]))
    moment = adam8._write(x, signed=True)
    read = np.asarray(adam8._read(moment, signed=True))
    assert read[0, 1] < 0
    assert read[0, 2] == 0
    assert not read[1:].any()


def test_a_large_leaf_takes_two_bytes_a_number_and_a_small_one_stays_float32():
    leaves = {"a": jnp.zeros((2, 512, 16)), "small": jnp.zeros((4095,))}
    made = adam8.scale_by_adam8(**HYPER).init(leaves)
    assert tree.nbytes((made.mu["a"], made.nu["a"])) == 2 * (2 * 512 * 16 + 4 * (2 * 2 * 16))
    assert made.mu["small"].dtype == made.nu["small"].dtype == jnp.float32
    whole = optax.scale_by_adam(**HYPER).init(leaves)
    assert tree.nbytes((made.mu["a"], made.nu["a"])) < 0.26 * tree.nbytes((whole.mu["a"], whole.nu["a"]))


def test_the_first_update_is_adams_and_a_small_leaf_follows_it_for_ever():
    leaves = {"large": jax.random.normal(jax.random.key(0), (64, 128)), "small": jnp.arange(8.0)}
    grads = jax.tree.map(lambda x: jnp.sin(7 * x), leaves)
    ours, theirs = adam8.scale_by_adam8(**HYPER), adam.scale_by_adam(**HYPER)
    kept, other, update = jax.jit(ours.init)(leaves), theirs.init(leaves), jax.jit(ours.update)
    for number in range(3):
        found, kept = update(grads, kept)
        wanted, other = theirs.update(grads, other)
        np.testing.assert_allclose(found["small"], wanted["small"], rtol=1e-6)
        if number == 0:
            np.testing.assert_allclose(found["large"], wanted["large"], rtol=1e-6, atol=1e-7)


@pytest.fixture
def all_in_8_bits(monkeypatch):
    monkeypatch.setattr(adam8, "SMALLEST", 0)


def test_the_curve_is_that_of_float32_moments_and_resumes_to_the_bit(
    sft_case, curve, tiny_batch, all_in_8_bits, tmp_path
):
    del all_in_8_bits
    case, made = sft_case(full=True), chain("adamw8bit")
    wanted = curve(case, tiny_batch, 20)
    run = jax.jit(step.make(case.algorithm, made, RATE, microbatches=1), donate_argnums=0)
    now = jax.jit(lambda trainable: state.init(trainable, made, jax.random.key(2)))(case.state.trainable)
    store, losses = Store(tmp_path / "store", 1), []
    for number in range(20):
        if number == 10:
            store.save(number, now, {})
        now, metrics = run(now, case.base, tiny_batch, INF)
        losses.append(float(metrics["loss"]))
    fall = wanted[0] - wanted[-1]
    assert fall > 0.5, "the case must learn, or equality means nothing"
    difference = np.abs(np.subtract(losses, wanted))
    assert difference.max() < 0.005 * fall  # measured: 0.0017, at the end 0.0003
    again, _ = store.restore(None, now)
    for _ in range(10):
        again, _ = run(again, case.base, tiny_batch, INF)
    plain = lambda s: jax.tree.leaves(s.replace(key=None))
    for one, other in zip(plain(again), plain(now), strict=True):
        np.testing.assert_array_equal(one, other)


def test_codes_lie_on_a_mesh_as_their_leaf_does_and_no_number_changes(tiny_config):
    mesh = meshes.make(data=1, fsdp=4, tensor=2)
    letters = model_params.axes(tiny_config())
    shapes = {"a": (2, 1024, 16), "b": (2, 16, 512)}
    leaves = {n: jax.random.normal(jax.random.key(i), s) for i, (n, s) in enumerate(shapes.items())}
    nodes = {"blocks": {"gate_proj": leaves}}
    made = adam8.scale_by_adam8(**HYPER)
    shardings = functools.partial(meshes.trainable_shardings, mesh, letters=letters)
    placed = jax.device_put(nodes, shardings(nodes))
    kept = jax.jit(made.init)(nodes)
    moved = jax.device_put(kept, shardings(kept))
    assert moved.mu["blocks"]["gate_proj"]["a"].codes.sharding.spec[1] == "fsdp"
    assert moved.nu["blocks"]["gate_proj"]["b"].codes.sharding.spec[2] == "tensor"
    update = jax.jit(made.update)
    for _ in range(2):
        wanted, kept = update(nodes, kept)
        found, moved = update(placed, moved)
    for one, other in zip(jax.tree.leaves((found, moved)), jax.tree.leaves((wanted, kept)), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-6)
