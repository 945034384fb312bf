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
        ask = lambda params: on_policy.logps(params, done.rows, config, temperature=temperature)
        mine, mask = ask(attach.attach(frozen.base, trainable)), done.rows.mask
        told = groups.metrics(done.scores, done.valid) | on_policy.drift(mine, done.sampler_logps, mask)
        if carrying.reference != "none":
            told |= on_policy.kl_metrics(mine, ask(on_policy.reference(frozen)), mask, done.valid)
        return Learned(done.rows, best), told

    def loss(trainable: Any, frozen: Frozen, batch: Learned, key: jax.Array | None) -> tuple[Any, Any, Metrics]:
        # As data: at temperature 1, and with dropout where the adapter has it.
        params = attach.attach(frozen.base, trainable, key)
        out, _ = on_policy.asked(params, batch.rows, config, temperature=1.0)
        values, metrics = supervised.cross_entropy(
            logps=layout.flat(out.logps), entropy=layout.flat(out.entropy), correct=layout.flat(out.correct)
        )
        return values, layout.flat(batch.rows.mask * batch.best[..., None]), metrics

    return on_policy.algorithm_of(
        init=init, experience=on_policy.experience_of(run, same, look, most_kl=most_kl), loss=loss, carrying=carrying,
        policy_of=same, terms=1,
    )  # fmt: skip
