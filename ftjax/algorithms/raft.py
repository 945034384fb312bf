"""Rejection-sampling fine-tuning (RAFT, Dong et al. 2023): learn the best of n completions of one's own, as data.

Completions of a group of equal scores are left out: there is no best one.
"""

from typing import Any, NamedTuple

import jax

from ftjax.adapters import attach
from ftjax.algorithms import on_policy
from ftjax.algorithms.algorithm import Algorithm, Frozen, Metrics
from ftjax.algorithms.grpo import Init
from ftjax.losses import supervised
from ftjax.models.config import ModelConfig
from ftjax.rl import groups, layout
from ftjax.rl.rollout import Completed, Rollout


class Learned(NamedTuple):
    """Completions as the updates see them; the first axis is the prompt."""

    rows: layout.Rows
    best: jax.Array  # [P, G]: 1 for the one that is learned


def make(
    init: Init, config: ModelConfig, *, run: Rollout, carrying: on_policy.Carrying, most_kl: float
) -> Algorithm:  # fmt: skip
    """Returns the algorithm; `run` draws and scores."""
    temperature = run.settings.temperature
    same = lambda trainable: trainable

    def look(trainable: Any, frozen: Frozen, done: Completed) -> tuple[Learned, Metrics]:
        found, differ = groups.best(done.scores, done.valid), groups.signal(done.scores, done.valid)
        best = jax.nn.one_hot(found.place, done.scores.shape[1]) * (found.present & differ)[:, None]
        ask = lambda params: on_policy.asked(params, done.rows, config, temperature=temperature)[0].logps
        mine, mask = ask(attach.attach(frozen.base, trainable)), done.rows.mask
        told = groups.metrics(done.scores, done.valid) | on_policy.drift(mine, done.sampler_logps, mask)
        if carrying.reference != "none":
            told |= on_policy.kl_metrics(mine, ask(on_policy.reference(frozen)), mask, done.valid)
        return Learned(done.rows, best), told

    look_jit = jax.jit(look)

    def experience(trainable: Any, frozen: Frozen, batch: Any, key: jax.Array) -> tuple[on_policy.Experience]:
        done, told = on_policy.collect(run, same, trainable, frozen, batch, key)
        learned, more = look_jit(trainable, frozen, done)
        if on_policy.KL in more:
            on_policy.refuse_far(more, most_kl)
        return (on_policy.Experience(learned, told | more),)

    def loss(trainable: Any, frozen: Frozen, batch: Learned, key: jax.Array | None) -> tuple[Any, Any, Metrics]:
        # As data: at temperature 1, and with dropout where the adapter has it.
        params = attach.attach(frozen.base, trainable, key)
        out, _ = on_policy.asked(params, batch.rows, config, temperature=1.0)
        flat = lambda x: x.reshape(-1, x.shape[-1])
        values, metrics = supervised.cross_entropy(
            logps=flat(out.logps), entropy=flat(out.entropy), correct=flat(out.correct)
        )
        return values, flat(batch.rows.mask * batch.best[..., None]), metrics

    return on_policy.algorithm_of(
        init=init, experience=experience, loss=loss, carrying=carrying, policy_of=same, terms=1
    )
