"""Sums and means under weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Weighted(NamedTuple):
    """A metric whose mean is under weights of its own: of some elements alone."""

    values: jax.Array
    weights: jax.Array


class Total(NamedTuple):
    """What the mean of a metric is made from, and can be added up: over microbatches, devices, batches."""

    value: jax.Array  # float32 []
    weight: jax.Array  # float32 []


def totals(metrics: dict[str, jax.Array | Weighted], weights: jax.Array) -> dict[str, Total]:
    """Returns the sums of metrics under their own weights, or else under those of the loss."""
    own = {name: x if isinstance(x, Weighted) else Weighted(x, weights) for name, x in metrics.items()}
    return {
        name: Total(masked_sum(x.values, x.weights), jnp.sum(x.weights, dtype=jnp.float32)) for name, x in own.items()
    }


def products(values: dict[str, jax.Array | Weighted], weights: jax.Array) -> dict[str, Total]:
    """Returns what `totals` sums, element by element: values times weights, 0 where there is no weight, and weights."""
    own = {name: x if isinstance(x, Weighted) else Weighted(x, weights) for name, x in values.items()}
    return {name: Total(jnp.where(w != 0, x * w, 0.0), w) for name, (x, w) in own.items()}


def means(found: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Returns the mean of every total; where means are of different elements, also the margin that is of no element."""
    mean = {name: value / (weight + (weight == 0)) for name, (value, weight) in found.items()}
    chosen, rejected, margin = (f"rewards/{what}" for what in ("chosen", "rejected", "margins"))
    if chosen in mean and rejected in mean and margin not in mean:
        mean[margin] = mean[chosen] - mean[rejected]
    return mean


def masked_sum(values: Float[Array, "*shape"], weights: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Returns sum(values * weights); a value without weight adds nothing, even if it is not finite."""
    return jnp.sum(jnp.where(weights != 0, values * weights, 0.0), dtype=jnp.float32)


def masked_mean(values: Float[Array, "*shape"], weights: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Returns sum(values * weights) / sum(weights), and 0 where no weight is."""
    return masked_sum(values, weights) / jnp.maximum(jnp.sum(weights, dtype=jnp.float32), 1e-9)
