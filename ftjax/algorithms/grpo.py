"""Policy gradients without a value model: what stands against a completion are others of the same prompt.

GRPO (Shao et al. 2024), Dr. GRPO, DAPO, RLOO, REINFORCE++ with baseline, GSPO and CISPO are one algorithm here with
another advantage (`rl/groups.py`), another loss of a token (`losses/policy.py`) and another divisor
(`losses/normalise.py`). To add one, write a function there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ftjax.adapters import attach
from ftjax.algorithms import on_policy
from ftjax.algorithms.algorithm import Algorithm, Frozen, Metrics
from ftjax.losses import normalise, policy, ratios
from ftjax.models.config import ModelConfig
from ftjax.rl import groups, kl, layout
from ftjax.rl.rollout import Completed, Rollout

Init = Callable[[jax.Array, Any], Any]
LOSSES = ("clipped", "gspo", "gspo_token", "cispo", "reinforce")
ADVANTAGES = ("grpo", "centred", "rloo", "reinforce_plus_plus")
NORMALISERS = ("per_sequence", "per_token", "per_length")


class Settings(NamedTuple):
    """Hyper-parameters."""

    advantage: str  # of ADVANTAGES
    loss: str  # of LOSSES
    normaliser: str  # of NORMALISERS
    clip_low: float
    clip_high: float
    dual_clip: float  # 0: none
    kl_in: str  # loss (GRPO's k3) | reward (RLOO's k1, taken off the score)
    importance_cap: float  # of the correction for a sampler that lags; 0: none
    only_ended: bool  # completions that were cut at the length do not count
    signal: bool  # groups of equal scores do not count (DAPO)
    groups: int  # most groups with signal that count in a step; 0: all


class Learned(NamedTuple):
    """Completions as the updates see them; the first axis is the prompt."""

    rows: layout.Rows
    logps: jax.Array | None  # [P, G, N] before the first update; None: the policy of the one update itself
    reference: jax.Array | None  # [P, G, N]; None: no penalty in the loss
    advantages: jax.Array  # [P, G, N]
    counted: jax.Array  # [P, G]: completions that take part


def make(
    init: Init,
    config: ModelConfig,
    *,
    run: Rollout,
    settings: Settings,
    carrying: on_policy.Carrying,
    updates: int,
    most_kl: float,
) -> Algorithm:
    """Returns the algorithm; `run` draws and scores, `updates` are made from one experience.

    With one update and a sampler that does not lag, the policy of the rollout is that of the update, so its log-
    probabilities are not computed twice.
    """
    temperature, s = run.settings.temperature, settings
    once = updates == 1 and not s.importance_cap
    same = lambda trainable: trainable
    ask = lambda params, rows: on_policy.logps(params, rows, config, temperature=temperature)

    def look(trainable: Any, frozen: Frozen, done: Completed) -> tuple[tuple[Learned, jax.Array], Metrics]:
        rows, mask = done.rows, done.rows.mask
        told: Metrics = {}
        mine: Any = None
        theirs: Any = None
        if not once or carrying.reference != "none":
            mine = ask(attach.attach(frozen.base, trainable), rows)
            told |= on_policy.drift(mine, done.sampler_logps, mask)
        scores, more = on_policy.normalised(frozen.extra, done.scores, done.valid)
        told |= more
        if carrying.reference != "none":
            theirs = ask(on_policy.reference(frozen), rows)
            told |= on_policy.kl_metrics(mine, theirs, mask, done.valid)
            told["objective/kl_coef"] = frozen.extra.coefficient
            if s.kl_in == "reward":
                scores -= frozen.extra.coefficient * jnp.sum(kl.k1(mine, theirs) * mask, axis=-1)
        found = _advantages(scores, done.valid, mask, s.advantage)
        told |= groups.metrics(done.scores, done.valid)
        counted = _counted(done, s)
        every = jnp.broadcast_to(found[..., None], mask.shape)
        if s.importance_cap:
            weight = policy.truncated_importance(
                layout.flat(mine), layout.flat(done.sampler_logps), cap=s.importance_cap
            )
            every = every * weight.reshape(mask.shape)
        told["groups"] = jnp.sum(jnp.any(counted != 0, axis=1), dtype=jnp.float32)
        kept = theirs if s.kl_in == "loss" else None
        return (Learned(rows, None if once else mine, kept, every * mask, counted), done.sampler_logps), told

    def loss(trainable: Any, frozen: Frozen, batch: Any, key: jax.Array | None) -> tuple[Any, Any, Metrics]:
        del key  # no dropout: a ratio of two forward passes must not be noise
        learned, sampled = batch
        params = attach.attach(frozen.base, trainable)
        out, _ = on_policy.asked(params, learned.rows, config, temperature=temperature)
        logps, mask, rows = layout.flat(out.logps), layout.flat(learned.rows.mask), learned.counted.reshape(-1)
        old = jax.lax.stop_gradient(logps) if learned.logps is None else layout.flat(learned.logps)
        values, metrics = _loss(s, logps, old, mask, layout.flat(learned.advantages))
        log_ratio = ratios.log_ratio(jax.lax.stop_gradient(logps), old)
        metrics["policy/approxkl_avg"] = jnp.square(log_ratio) / 2
        metrics["val/ratio"] = jnp.exp(log_ratio)
        metrics["entropy"] = layout.flat(out.entropy)
        if learned.logps is None:
            metrics |= policy.drift(old, layout.flat(sampled), cap=1e4)
        if learned.reference is not None:
            penalty, nats = policy.kl_penalty(logps=logps, reference=layout.flat(learned.reference), beta=1.0)
            values, metrics = values + frozen.extra.coefficient * penalty, metrics | nats
        told = normalise.metrics_of_tokens(metrics, mask, rows)
        length = {"max_completion_length": run.settings.max_new_tokens} if s.normaliser == "per_length" else {}
        made = getattr(normalise, s.normaliser)(values, mask, rows, **length)
        return made.losses, made.weights, told

    return on_policy.algorithm_of(
        init=init, experience=on_policy.experience_of(run, same, look, most_kl=most_kl), loss=loss, carrying=carrying,
        policy_of=same, terms=1,
    )  # fmt: skip


def _advantages(scores: jax.Array, valid: jax.Array, mask: jax.Array, name: str) -> jax.Array:
    """Returns the advantage of each completion, [P, G]."""
    if name == "grpo":
        return groups.grpo(scores, valid, eps=1e-4)
    if name == "reinforce_plus_plus":
        return groups.reinforce_plus_plus(scores, valid, jnp.sum(mask, axis=-1), ddof=0, eps=1e-8)
    return {"centred": groups.centred, "rloo": groups.rloo}[name](scores, valid)


def _counted(done: Completed, s: Settings) -> jax.Array:
    """Returns which completions take part, float32 [P, G]."""
    counted = done.valid
    if s.only_ended:
        counted = counted * done.ended
    if s.signal:
        with_signal = groups.signal(done.scores, done.valid)  # as scored: a KL in the reward differs always
        if s.groups:
            with_signal &= jnp.cumsum(with_signal) <= s.groups
        counted = counted * with_signal[:, None]
    return counted


def _loss(
    s: Settings, logps: jax.Array, old: jax.Array, mask: jax.Array, advantages: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Returns the loss of every token, [B, N], and its metrics."""
    given: dict[str, Any] = {"logps": logps, "old_logps": old, "advantages": advantages}
    given |= {"clip_low": s.clip_low, "clip_high": s.clip_high}
    if s.loss == "reinforce":
        values, metrics = policy.reinforce(logps=logps, advantages=advantages)
        del metrics["entropy"]  # the exact one is there
    elif s.loss == "clipped":
        values, metrics = policy.clipped_surrogate(**given)
    elif s.loss == "cispo":
        values, metrics = policy.cispo(**given)
    elif s.loss == "gspo_token":
        values, metrics = policy.gspo_token(**given, mask=mask)
    else:
        values, metrics = policy.gspo(**{**given, "advantages": advantages[:, 0]}, mask=mask)
    if s.dual_clip and s.loss != "reinforce":
        values, more = policy.dual_clip(values, advantages, bound=s.dual_clip)
        metrics |= more
    return values, metrics
