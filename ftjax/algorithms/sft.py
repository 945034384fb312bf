"""Supervised fine-tuning: the token mean of -log p over the supervised tokens of the whole global batch."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from ftjax.adapters import attach
from ftjax.algorithms.algorithm import Algorithm, Metrics
from ftjax.losses import supervised
from ftjax.models import decoder
from ftjax.models.config import ModelConfig


def make(init: Callable[[jax.Array, Any], Any], config: ModelConfig) -> Algorithm:
    """Returns the algorithm; `init(key, base)` makes what trains: adapters, or for full fine-tuning the weights."""

    def experience(trainable: Any, base: Any, batch: Any, key: jax.Array) -> Iterable[Any]:
        del trainable, base, key
        return (batch,)

    def loss(trainable: Any, base: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, jax.Array, Metrics]:
        params = attach.attach(base, trainable, key)
        out = decoder.logps(
            params, batch.tokens, batch.targets, batch.weights, config, batch.positions, batch.segments
        )  # fmt: skip
        values, metrics = supervised.cross_entropy(logps=out.logps, entropy=out.entropy, correct=out.correct)
        return values, batch.weights, metrics

    return Algorithm(init=init, experience=experience, loss=loss)
