"""LoftQ: bits and what they lost are together nearer to the weight than bits alone, and more iterations never hurt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.adapters import attach, loftq
from ftjax.errors import UserError
from ftjax.nn import matmul
from ftjax.quant import convert, low_rank

PLAIN = {"dropout": 0.0, "rslora": False, "path": "blocks.q_proj"}


@pytest.fixture(scope="module")
def weight():
    """A matrix with a spectrum that falls, as trained weights have one."""
    u, v = (jax.random.normal(jax.random.key(k), (64, 24)) for k in (0, 1))
    return (u * jnp.arange(1, 25)[None] ** -0.7) @ v.T + 0.3 * jax.random.normal(jax.random.key(2), (64, 64))


def off(weight, node):
    return float(jnp.linalg.norm(weight - node.dequantize(jnp.float32)))


@pytest.mark.parametrize("name", ["nf4", "nf4-dq", "int4"])
def test_the_error_is_below_that_of_the_bits_alone_and_does_not_rise_with_iterations(name, weight):
    few = convert.Few(name, 64)
    alone = off(weight, convert.matrix(weight, few, where="w"))
    errors = [
        off(weight, convert.matrix(weight, few._replace(rank=8, iterations=count), where="w")) for count in (1, 2, 5)
    ]
    assert errors[0] < 0.95 * alone
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < errors[0], "the alternation finds nothing"


def test_the_first_iteration_is_the_bits_alone_and_the_best_of_what_they_lost(weight):
    few = convert.Few("nf4", 64)
    alone = convert.matrix(weight, few, where="w")
    made = convert.matrix(weight, few._replace(rank=8, iterations=1), where="w")
    jax.tree.map(np.testing.assert_array_equal, made.few, alone)
    lost = jnp.linalg.svd(weight - alone.dequantize(jnp.float32), compute_uv=False)
    assert off(weight, made) == pytest.approx(float(jnp.linalg.norm(lost[8:])), rel=1e-4)  # Eckart-Young


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_adapter_trains_as_a_lora_on_the_bits_alone_that_begins_at_what_they_lost(scale, weight):
    made = convert.matrix(weight, convert.Few("nf4", 64, rank=8, iterations=1), where="w")
    one = loftq.init_one(jax.random.key(0), made, rank=8, alpha=8 * scale, **PLAIN)
    x, dense = jax.random.normal(jax.random.key(3), (5, 64)), made.few.dequantize(jnp.float32)
    book = lambda a, b: jnp.sum(jnp.sin(x @ dense + scale * x @ a @ b))
    run = lambda a, b: jnp.sum(jnp.sin(matmul.matmul(x, attach.Adapted(made, one.replace(a=a, b=b)))))
    np.testing.assert_allclose(scale * one.a @ one.b, made.a @ made.b, atol=1e-5)
    a, b = one.a + 0.01, one.b - 0.02
    for wanted, found in zip(*(jax.grad(f, argnums=(0, 1))(a, b) for f in (book, run)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_base_that_kept_nothing_or_another_rank_is_refused(weight):
    init = functools.partial(loftq.init_one, jax.random.key(0), alpha=8.0, **PLAIN)
    for plain in (weight, convert.matrix(weight, convert.Few("nf4", 64), where="w")):
        with pytest.raises(UserError, match=r"keeps nothing of what blocks\.q_proj lost .*/quantize\.py --loftq 8"):
            init(plain, rank=8)
    made = convert.abstract((64, 64), convert.Few("nf4", 64, rank=8, iterations=1))
    assert isinstance(made, low_rank.Corrected)
    with pytest.raises(UserError, match=r"made with --loftq 8, and blocks\.q_proj asks for rank 4"):
        init(made, rank=4)
