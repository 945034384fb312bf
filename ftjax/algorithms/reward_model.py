"""Reward models: a head of one number on the base and its adapters, read at the last token of each completion.

Bradley-Terry on pairs (all pairs of a ranking in one row, each weighed by one over their number: InstructGPT, Ouyang et
al. 2022, eq. 1), or one completion at a time on labels. The head begins as N(0, 1 / (D + 1)) (Ziegler et al. 2019).
"""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax import tree
from ftjax.adapters import attach
from ftjax.algorithms import algorithm, completions
from ftjax.algorithms.algorithm import Algorithm, Metrics
from ftjax.algorithms.dpo import Init
from ftjax.losses import reward
from ftjax.models import decoder, heads
from ftjax.models.config import ModelConfig


def scores(params: Any, batch: Any, config: ModelConfig) -> jax.Array:
    """Returns the score of every completion of a PreferenceBatch, float32 [B, C]; anything where there is none."""
    hidden_BTD = decoder.hidden(params, batch.tokens, config, batch.positions, batch.segments, batch.branches)
    return heads.score(params, hidden_BTD, batch.ends)


def with_head(init: Init) -> Init:
    """Returns `init` whose trainables have the head as well."""

    def make_all(key: jax.Array, base: Any) -> Any:
        width = base.norm.shape[-1]
        head = jax.random.normal(tree.fold(key, "score"), (width, 1), jnp.float32) * (width + 1) ** -0.5
        return init(key, base).replace(score=head)

    return make_all


def make(init: Init, config: ModelConfig, *, margin_scale: float, centring: float) -> Algorithm:
    """Returns the algorithm of pairs. Margins of the data times `margin_scale` are in the loss; `centring` weighs
    (chosen + rejected)^2.
    """

    def loss(trainable: Any, base: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, jax.Array, Metrics]:
        chosen, rejected = completions.pairs(scores(attach.attach(base, trainable, key), batch, config), batch)
        values, metrics = reward.bradley_terry(chosen, rejected, margin=margin_scale * batch.margins.reshape(-1))
        if centring:
            extra, told = reward.centring(chosen, rejected, coefficient=centring)
            values, metrics = values + extra, metrics | told
        shape = batch.pair_weights.shape
        return values.reshape(shape), batch.pair_weights, {name: x.reshape(shape) for name, x in metrics.items()}

    return Algorithm(init=with_head(init), experience=algorithm.as_it_is, loss=loss)


def make_pointwise(init: Init, config: ModelConfig) -> Algorithm:
    """Returns the algorithm of labels between 0 and 1 for single completions: binary cross entropy."""

    def loss(trainable: Any, base: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, jax.Array, Metrics]:
        found = scores(attach.attach(base, trainable, key), batch, config)
        values, metrics = reward.pointwise(found.reshape(-1), labels=batch.labels.reshape(-1))
        metrics = {name: x.reshape(found.shape) for name, x in metrics.items()}
        return values.reshape(found.shape), batch.label_weights, metrics

    return Algorithm(init=with_head(init), experience=algorithm.as_it_is, loss=loss)
