"""Normalisation of activations."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x: Float[Array, "... D"], weight: Float[Array, " D"], *, eps: float) -> Float[Array, "... D"]:
    """Returns x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, eq. 4), computed in float32."""
    x32 = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    weight32 = jnp.expand_dims(weight.astype(jnp.float32), tuple(range(x.ndim - 1)))
    return (x32 * scale * weight32).astype(x.dtype)
