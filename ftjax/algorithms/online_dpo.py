"""Online DPO (Guo et al. 2024): the best and the worst of one's own completions are a pair, in every step anew.

The loss is any of `losses/preference.py` that takes the log-probabilities of policy and reference alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ftjax.adapters import attach
from ftjax.algorithms import on_policy
from ftjax.algorithms.algorithm import Algorithm, Frozen, Metrics
from ftjax.algorithms.grpo import Init
from ftjax.losses import preference
from ftjax.losses.preference import PairLogps
from ftjax.models.config import ModelConfig
from ftjax.rl import groups, layout
from ftjax.rl.rollout import Completed, Rollout


class Learned(NamedTuple):
    """Completions as the updates see them; the first axis is the prompt."""

    rows: layout.Rows
    reference: jax.Array  # [P, G] log-probabilities of completions
    pair: groups.Extremes


def make(
    init: Init,
    config: ModelConfig,
    *,
    run: Rollout,
    carrying: on_policy.Carrying,
    pair_loss: Callable[..., preference.Loss],
    beta: float,
    most_kl: float,
) -> Algorithm:
    """Returns the algorithm; `run` draws and scores, `beta` scales the implicit rewards of the metrics."""
    temperature = run.settings.temperature
    same = lambda trainable: trainable
    ask = lambda params, rows: on_policy.logps(params, rows, config, temperature=temperature)

    def look(trainable: Any, frozen: Frozen, done: Completed) -> tuple[Learned, Metrics]:
        mine = ask(attach.attach(frozen.base, trainable), done.rows)
        theirs = ask(on_policy.reference(frozen), done.rows)
        told = groups.metrics(done.scores, done.valid)
        told |= on_policy.drift(mine, done.sampler_logps, done.rows.mask)
        told |= on_policy.kl_metrics(mine, theirs, done.rows.mask, done.valid)
        pair = groups.best_and_worst(done.scores, done.valid)
        return Learned(done.rows, jnp.sum(theirs, axis=-1), pair), told

    def loss(trainable: Any, frozen: Frozen, batch: Learned, key: jax.Array | None) -> tuple[Any, Any, Metrics]:
        del key  # no dropout: a ratio of two models must not be noise
        mine = jnp.sum(ask(attach.attach(frozen.base, trainable), batch.rows), axis=-1)
        pick = lambda values, at: jnp.take_along_axis(values, at[:, None], axis=1)[:, 0]
        pairs = lambda values: PairLogps(pick(values, batch.pair.chosen), pick(values, batch.pair.rejected))
        held, theirs = pairs(mine), pairs(batch.reference)
        values, metrics = pair_loss(policy=held, reference=theirs)
        metrics = metrics | preference.metrics(held, theirs, beta=beta)
        return values, batch.pair.present.astype(jnp.float32), metrics

    return on_policy.algorithm_of(
        init=init, experience=on_policy.experience_of(run, same, look, most_kl=most_kl), loss=loss, carrying=carrying,
        policy_of=same, terms=1,
    )  # fmt: skip
