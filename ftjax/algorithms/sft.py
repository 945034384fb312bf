"""Supervised fine-tuning: the token mean of -log p over the supervised tokens of the whole global batch."""

from collections.abc import Callable
from typing import Any

import jax

from ftjax.adapters import attach, noise
from ftjax.algorithms import algorithm
from ftjax.algorithms.algorithm import Algorithm, Metrics
from ftjax.losses import supervised
from ftjax.models import decoder
from ftjax.models.config import ModelConfig

Init = Callable[[jax.Array, Any], Any]
Change = Callable[[Any, Any, jax.Array | None], Any]  # (params, batch, key) -> params


def make(init: Init, config: ModelConfig) -> Algorithm:
    """Returns the algorithm; `init(key, base)` makes what trains: adapters, or for full fine-tuning the weights."""
    return _make(init, config, lambda params, *_: params)


def make_neftune(init: Init, config: ModelConfig, *, alpha: float) -> Algorithm:
    """Returns the algorithm with noise on the embeddings of every training step, none in evaluation.

    U(-1, 1) * alpha / sqrt(T D) with the T of each document (Jain et al. 2023, algorithm 1).
    """

    def noisy(params: Any, batch: Any, key: jax.Array | None) -> Any:
        if key is None:
            return params
        return params.replace(embed_tokens=noise.on(params.embed_tokens, batch.segments, key, alpha=alpha))

    return _make(init, config, noisy)


def _make(init: Init, config: ModelConfig, change: Change) -> Algorithm:
    def loss(trainable: Any, base: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, jax.Array, Metrics]:
        params = change(attach.attach(base, trainable, key), batch, key)
        out = decoder.logps(
            params, batch.tokens, batch.targets, batch.weights, config, batch.positions, batch.segments
        )  # fmt: skip
        values, metrics = supervised.cross_entropy(logps=out.logps, entropy=out.entropy, correct=out.correct)
        return values, batch.weights, metrics

    return Algorithm(init=init, experience=algorithm.as_it_is, loss=loss)
