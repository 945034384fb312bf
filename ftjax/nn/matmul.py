"""The only place that knows what a weight can be: dense, in few bits, or adapted."""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.adapters.attach import Adapted
from ftjax.quant import format as quant_format


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


@jax.custom_vjp
def _quantized(x: jax.Array, weight: Any) -> jax.Array:
    return x @ weight.dequantize(x.dtype)


def _quantized_fwd(x: jax.Array, weight: Any) -> tuple[jax.Array, Any]:
    # All that is kept is the packed weight: autodiff would keep the dense one, 8 times as large, for every layer.
    return x @ weight.dequantize(x.dtype), weight


def _quantized_bwd(weight: Any, grad: jax.Array) -> tuple[jax.Array, None]:
    return grad @ weight.dequantize(grad.dtype).T, None


_quantized.defvjp(_quantized_fwd, _quantized_bwd)


def matmul(x: jax.Array, weight: Any) -> jax.Array:
    """Returns x @ weight in the dtype of x, for a weight [in, out]: dense, quantised (frozen) or with an adapter."""
    if isinstance(weight, Adapted):
        y = matmul(weight.adapter.enter(x), weight.frozen)
        return weight.adapter.forward(x, y, weight.frozen, weight.key)
    if quant_format.is_quantized(weight):
        return _quantized(x, weight)
    return _dense(x, weight)


def linear(x: jax.Array, weight: Any, bias: jax.Array | None) -> jax.Array:
    """Returns x @ weight + bias; a bias of None adds nothing."""
    y = matmul(x, weight)
    return y if bias is None else y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(y.ndim - 1)))
