"""Log-probabilities of whole rows, without the loss of any algorithm."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ftjax.models import decoder
from ftjax.models.config import ModelConfig


@functools.partial(jax.jit, static_argnames="config")
def of_rows(params: Any, batch: Any, *, config: ModelConfig) -> jax.Array:
    """Returns the log-probability of the counted tokens of every row of an SFTBatch, in nats, float32 [B]."""
    out = decoder.logps(
        params, batch.tokens, batch.targets, batch.weights, config, batch.positions, batch.segments
    )  # fmt: skip
    return jnp.sum(out.logps * batch.weights, axis=1)
