"""The only place that knows what a weight can be: dense or adapted (and, once formats exist, in few bits)."""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.adapters.attach import Adapted


@jax.custom_vjp
def _dense(x: jax.Array, weight: jax.Array) -> jax.Array:
    return x @ weight.astype(x.dtype)


def _dense_fwd(x: Any, weight: Any) -> tuple[jax.Array, tuple[Any, ...]]:
    # A frozen weight needs no gradient, and then the activations need not be kept.
    return x.value @ weight.value.astype(x.value.dtype), (x.value if weight.perturbed else None, weight.value)


def _dense_bwd(saved: tuple[Any, ...], grad: Any) -> tuple[Any, Any]:
    x, weight = saved
    if isinstance(grad, jax.custom_derivatives.SymbolicZero):
        return None, None
    dx = grad @ weight.astype(grad.dtype).T
    if x is None:
        return dx, None
    # As x^T dy in one dot over tokens; autodiff's form made XLA's CPU backend transpose dy and leave its fast kernels.
    flat = lambda y: y.reshape(-1, y.shape[-1])
    dweight = jnp.einsum("NI,NO->IO", flat(x), flat(grad), preferred_element_type=jnp.float32)
    return dx, dweight.astype(weight.dtype)


_dense.defvjp(_dense_fwd, _dense_bwd, symbolic_zeros=True)


def matmul(x: jax.Array, weight: Any) -> jax.Array:
    """Returns x @ weight in the dtype of x, for a dense weight [in, out] or one with an adapter on it."""
    if isinstance(weight, Adapted):
        return weight.adapter.forward(x, matmul(x, weight.frozen), weight.frozen, weight.key)
    return _dense(x, weight)


def linear(x: jax.Array, weight: Any, bias: jax.Array | None) -> jax.Array:
    """Returns x @ weight + bias; a bias of None adds nothing."""
    y = matmul(x, weight)
    return y if bias is None else y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(y.ndim - 1)))
