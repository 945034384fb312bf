"""The only place that knows what a weight can be: dense or adapted (and, once formats exist, in few bits)."""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.adapters.attach import Adapted


def matmul(x: jax.Array, weight: Any) -> jax.Array:
    """Returns x @ weight in the dtype of x, for a dense weight [in, out] or one with an adapter on it."""
    if isinstance(weight, Adapted):
        return weight.adapter.forward(x, matmul(x, weight.frozen), weight.frozen, weight.key)
    return x @ weight.astype(x.dtype)


def linear(x: jax.Array, weight: Any, bias: jax.Array | None) -> jax.Array:
    """Returns x @ weight + bias; a bias of None adds nothing."""
    y = matmul(x, weight)
    return y if bias is None else y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(y.ndim - 1)))
