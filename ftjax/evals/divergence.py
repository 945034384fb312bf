"""How far the predictions of one model are from those of another."""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.models import decoder
from ftjax.models.config import ModelConfig


def kl(params: Any, other: Any, batch: Any, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of KL(params || other) over the positions of an SFTBatch that count, in nats, and their weight.

    Both models have one config. Logits exist for one row of the batch at a time.
    """

    def row(one: Any) -> jax.Array:
        # One row as a batch of one.
        tokens, positions, segments = (part[None] for part in (one.tokens, one.positions, one.segments))
        p, q = (
            jax.nn.log_softmax(decoder.logits(model, tokens, config, positions, segments)) for model in (params, other)
        )
        return jnp.sum(jnp.sum(jnp.exp(p) * (p - q), axis=-1)[0] * one.weights)

    batch = jax.tree.map(jnp.asarray, batch)
    return jnp.sum(jax.lax.map(row, batch)), jnp.sum(batch.weights)
