import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.adapters import attach, lora
from ftjax.nn import moe
from ftjax.quant import int8

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles in half the time
B, T, D, F, E, K = 2, 37, 16, 24, 5, 2  # 148 pairs of token and expert: blocks of 8, the last of an expert short


@pytest.fixture(scope="module")
def weights():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((D, E), (E, D, F), (E, D, F), (E, F, D))
    return tuple(jax.random.normal(key, shape) / 4 for key, shape in zip(keys, shapes, strict=True))


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (B, T, D))


def ours(x, *weights, normalize=True):
    return moe.mixture(x, *weights, top_k=K, normalize=normalize, activation=jax.nn.silu)


def every_expert(x, router, gate, up, down, normalize=True):
    """The textbook: all experts for all tokens, those that were not chosen with weight 0."""
    probs = jax.nn.softmax(x @ router, axis=-1)
    kept = jnp.where(probs >= jax.lax.top_k(probs, K)[0][..., -1:], probs, 0)
    kept = kept / kept.sum(-1, keepdims=True) if normalize else kept
    inner = jax.nn.silu(jnp.einsum("BTD,EDF->BTEF", x, gate)) * jnp.einsum("BTD,EDF->BTEF", x, up)
    return jnp.einsum("BTEF,EFD,BTE->BTD", inner, down, kept)


def total(call):
    """A non-linear number, so that every gradient depends on every output."""
    return lambda *given: jnp.sum(jnp.sin(call(*given)))


def assert_close(mine, book, atol=2e-5):
    for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(book), strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_mixture_is_the_weighted_sum_of_the_chosen_experts_and_so_are_its_gradients(x, weights, normalize):
    mine = lambda *a: ours(*a, normalize=normalize)
    book = lambda *a: every_expert(*a, normalize=normalize)
    assert_close(jit(mine)(x, *weights), book(x, *weights), 5e-6)
    every = tuple(range(5))
    assert_close(jit(jax.grad(total(mine), every))(x, *weights), jit(jax.grad(total(book), every))(x, *weights))


def test_an_adapter_on_experts_gives_the_merged_experts_values_and_its_own_gradients(x, weights):
    router, gate, up, down = weights
    a, b = (jax.random.normal(jax.random.key(k), shape) for k, shape in ((2, (E, D, 3)), (3, (E, 3, F))))
    made = lora.LoRA(a=a, b=b, scale=0.3, dropout=0.0)
    mine = total(lambda made: ours(x, router, attach.Adapted(gate, made), up, down))
    book = total(lambda made: every_expert(x, router, made.merge(gate), up, down))
    np.testing.assert_allclose(mine(made), book(made), rtol=1e-5)
    assert_close(jit(jax.grad(mine))(made), jit(jax.grad(book))(made))


def test_experts_in_few_bits_compute_with_their_dequantised_weights(x, weights):
    router, gate, up, down = weights
    packed = [int8.quantize(weight, group=0) for weight in (gate, up, down)]
    unpacked = [weight.dequantize(jnp.float32) for weight in packed]
    assert_close(jit(ours)(x, router, *packed), every_expert(x, router, *unpacked), 5e-6)
    mine = jit(jax.grad(total(lambda x: ours(x, router, *packed))))(x)
    assert_close(mine, jax.grad(total(lambda x: every_expert(x, router, *unpacked)))(x))


def test_dropout_on_experts_draws_from_its_key_alone(x, weights):
    router, gate, up, down = weights
    made = lora.LoRA(a=jnp.ones((E, D, 3)), b=jnp.ones((E, 3, F)) / 9, scale=1.0, dropout=0.5)
    call = jit(lambda key: ours(x, router, attach.Adapted(gate, made, key), up, down))
    np.testing.assert_array_equal(call(jax.random.key(1)), call(jax.random.key(1)))
    assert np.abs(call(jax.random.key(1)) - call(jax.random.key(2))).max() > 1e-3


def test_rows_of_experts_that_have_none_many_or_one(weights):
    """Groups of 0, 30 (more than a block), 1, 0 and 9 rows; and a single row in all."""
    gate = weights[1]
    sizes = jnp.asarray([0, 30, 1, 0, 9])
    rows = jax.random.normal(jax.random.key(4), (40, D))
    owner = np.repeat(np.arange(E), sizes)
    assert_close(moe.grouped(rows, gate, sizes), jnp.einsum("XD,XDF->XF", rows, gate[owner]), 5e-6)
    alone = jnp.asarray([0, 0, 0, 1, 0])
    assert_close(moe.grouped(rows[:1], gate, alone), rows[:1] @ gate[3], 5e-6)


def test_no_product_of_every_row_with_every_expert_exists():
    """jax.lax.ragged_dot on CPU makes one: [E, rows, in], here 64 times the rows."""
    experts, rows, width = 64, 1024, 32
    shapes = [(rows, width), (experts, width, width)]
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    sizes = jax.ShapeDtypeStruct((experts,), jnp.int32)
    spread = experts * rows * width * 4

    def scratch(product):
        loss = lambda x, w, n: jnp.sum(jnp.sin(product(x, w, n)))
        return jax.jit(jax.grad(loss, (0, 1))).lower(*given, sizes).compile().memory_analysis().temp_size_in_bytes

    assert scratch(moe.grouped) < spread / 8
    assert scratch(jax.lax.ragged_dot) >= spread  # the day it is not, look at it again
