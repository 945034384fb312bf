"""Sums and means under weights."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def masked_sum(values: Float[Array, "*shape"], weights: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Returns sum(values * weights); a value without weight adds nothing, even if it is not finite."""
    return jnp.sum(jnp.where(weights != 0, values * weights, 0.0), dtype=jnp.float32)


def masked_mean(values: Float[Array, "*shape"], weights: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Returns sum(values * weights) / sum(weights), and 0 where no weight is."""
    return masked_sum(values, weights) / jnp.maximum(jnp.sum(weights, dtype=jnp.float32), 1e-9)
