"""The only place that knows what a weight can be: dense, in few bits, or adapted."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ftjax import mesh
from ftjax.adapters.attach import Adapted
from ftjax.nn import backends
from ftjax.quant import format as quant_format

Axes = tuple[str, str]  # axis letters of a weight: of its inputs and of its outputs


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: jax.Array, weight: jax.Array, axes: Axes | None) -> jax.Array:
    return x @ mesh.gathered(weight, axes).astype(x.dtype)


def _dense_fwd(x: Any, weight: Any, axes: Axes | None) -> tuple[jax.Array, tuple[Any, ...]]:
    # A frozen weight needs no gradient, and then the activations need not be kept.
    y = x.value @ mesh.gathered(weight.value, axes).astype(x.value.dtype)
    return y, (x.value if weight.perturbed else None, weight.value)


def _dense_bwd(axes: Axes | None, saved: tuple[Any, ...], grad: Any) -> tuple[Any, Any]:
    x, weight = saved
    if isinstance(grad, jax.custom_derivatives.SymbolicZero):
        return None, None
    dx = grad @ mesh.gathered(weight, axes).astype(grad.dtype).T
    if x is None:
        return dx, None
    # As x^T dy in one dot over tokens; autodiff's form made XLA's CPU backend transpose dy and leave its fast kernels.
    flat = lambda y: y.reshape(-1, y.shape[-1])
    dweight = jnp.einsum("NI,NO->IO", flat(x), flat(grad), preferred_element_type=jnp.float32)
    return dx, dweight.astype(weight.dtype)


_dense.defvjp(_dense_fwd, _dense_bwd, symbolic_zeros=True)


def _product(x: jax.Array, weight: Any, axes: Axes | None) -> jax.Array:
    kernel = backends.kernel(x, weight)
    if kernel is not None:
        return kernel(x, weight)
    # Gathered before it is dequantised, or the partitioner moves 8 times the bytes.
    return x @ mesh.gathered(weight, axes).dequantize(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _quantized(x: jax.Array, weight: Any, axes: Axes | None) -> jax.Array:
    return _product(x, weight, axes)


def _quantized_fwd(x: jax.Array, weight: Any, axes: Axes | None) -> tuple[jax.Array, Any]:
    # All that is kept is the packed weight, in its slices: autodiff would keep the dense one, 8 times as large, for
    # every layer.
    return _product(x, weight, axes), weight


def _quantized_bwd(axes: Axes | None, weight: Any, grad: jax.Array) -> tuple[jax.Array, None]:
    return grad @ mesh.gathered(weight, axes).dequantize(grad.dtype).T, None


_quantized.defvjp(_quantized_fwd, _quantized_bwd)


def matmul(x: jax.Array, weight: Any, axes: Axes | None = None) -> jax.Array:
    """Returns x @ weight in the dtype of x, for a weight [in, out]: dense, quantised (frozen) or with an adapter.

    `axes` are its letters (`models.params.PROJECTIONS`): under a mesh, what fsdp has cut is put together here, in the
    form in which it is stored. Without them the partitioner decides.
    """
    if isinstance(weight, Adapted):
        y = matmul(weight.adapter.enter(x), weight.frozen, axes)
        return weight.adapter.forward(x, y, weight.frozen, weight.key)
    if quant_format.is_quantized(weight):
        return _quantized(x, weight, axes)
    return _dense(x, weight, axes)


def linear(x: jax.Array, weight: Any, bias: jax.Array | None, axes: Axes | None = None) -> jax.Array:
    """Returns x @ weight + bias; a bias of None adds nothing."""
    y = matmul(x, weight, axes)
    return y if bias is None else y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(y.ndim - 1)))
