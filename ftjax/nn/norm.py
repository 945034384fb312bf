"""Normalisation of activations."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], *, eps: float, offset: float
) -> Float[Array, "... D"]:
    """Returns x / sqrt(mean(x^2) + eps) * (offset + weight), computed in float32.

    Zhang and Sennrich 2019, eq. 4; Gemma's weights count from one (offset 1), all others from zero.
    """
    x32 = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    weight32 = jnp.expand_dims(weight.astype(jnp.float32), tuple(range(x.ndim - 1)))
    if offset:
        weight32 = offset + weight32
    return (x32 * scale * weight32).astype(x.dtype)
