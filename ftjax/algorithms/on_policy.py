"""What algorithms that learn from their own samples share: an experience, and what they carry from step to step.

Numbers in brackets are the details of docs/ppo.md.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

from ftjax.adapters import attach
from ftjax.algorithms import algorithm
from ftjax.algorithms.algorithm import Algorithm, Metrics
from ftjax.errors import UserError
from ftjax.losses import reduce
from ftjax.models.config import ModelConfig
from ftjax.nn import token_logps
from ftjax.rl import kl, layout, rollout

Controller = Callable[[jax.Array, jax.Array], jax.Array]  # (coefficient, KL of the step) -> the next coefficient
KL = "objective/kl"
_DRAWS = 1 << 30  # folded into a step's key for its rollout; the updates take small numbers


class Experience(NamedTuple):
    """What a step learns from: `rows`, whose first axis is the prompt, and numbers about them."""

    rows: Any
    told: dict[str, Any]


class Moments(struct.PyTreeNode):
    """Running mean and variance of scores."""

    count: jax.Array
    mean: jax.Array
    squares: jax.Array  # sum of squared differences from the mean

    def std(self) -> jax.Array:
        """Returns the standard deviation, 1 before there are two different scores."""
        variance = self.squares / jnp.maximum(self.count - 1, 1)
        return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 1.0)

    def with_scores(self, scores: jax.Array, valid: jax.Array) -> "Moments":
        """Returns the moments of these scores and all before (Chan et al. 1979)."""
        more = jnp.sum(valid)
        mean = reduce.masked_mean(scores, valid)
        squares = reduce.masked_sum(jnp.square(scores - mean), valid)
        count, apart = self.count + more, mean - self.mean
        share = more / jnp.maximum(count, 1)
        return Moments(
            count=count, mean=self.mean + apart * share, squares=self.squares + squares + apart**2 * self.count * share
        )


class Carried(struct.PyTreeNode):
    """What changes from step to step, but not by gradients; it is in every checkpoint."""

    coefficient: jax.Array  # of the KL penalty
    scores: Moments | None  # None: scores are taken as they are
    sampler: Any  # the policy that completions are drawn from, where it lags; None: the policy itself
    reference: Any  # a copy of what trained as it began; None: the base


class Carrying(NamedTuple):
    """How that changes."""

    coefficient: float  # of the first step
    controller: Controller | None  # None: the coefficient stays (11)
    sync_every: int  # steps after which the sampler becomes the policy; 1: it is always the policy
    normalise: bool  # scores to mean 0 and variance 1, by those of all steps so far
    reference: str  # base | start | none

    def extra(self, policy_of: Callable[[Any], Any]) -> algorithm.Extra:
        """Returns the extra of an algorithm whose policy is `policy_of` what it trains."""

        def init(trainable: Any, base: Any) -> Carried:
            del base
            zero = jnp.zeros((), jnp.float32)
            return Carried(
                coefficient=jnp.float32(self.coefficient),
                scores=Moments(count=zero, mean=zero, squares=zero) if self.normalise else None,
                sampler=policy_of(trainable) if self.sync_every > 1 else None,
                reference=policy_of(trainable) if self.reference == "start" else None,
            )

        def update(extra: Carried, trainable: Any, step: jax.Array, metrics: Metrics) -> Carried:
            if self.controller is not None:
                extra = extra.replace(coefficient=self.controller(extra.coefficient, metrics[KL]))
            if self.normalise:
                extra = extra.replace(scores=Moments(**{name: metrics[f"scores/{name}"] for name in _MOMENTS}))
            if self.sync_every > 1:
                now = step % self.sync_every == 0
                fresh = jax.tree.map(lambda new, old: jnp.where(now, new, old), policy_of(trainable), extra.sampler)
                extra = extra.replace(sampler=fresh)
            return extra

        return algorithm.Extra(init=init, update=update)


_MOMENTS = ("count", "mean", "squares")


def normalised(extra: Carried, scores: jax.Array, valid: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns scores by the running moments (21), these among them, and the moments as metrics for `Carried`."""
    if extra.scores is None:
        return scores, {}
    moments = extra.scores.with_scores(scores, valid)
    told = {f"scores/{name}": getattr(moments, name) for name in _MOMENTS}
    return (scores - moments.mean) / moments.std(), told


def reference(frozen: algorithm.Frozen) -> Any:
    """Returns the weights of the reference: the base, or those with what trained as it began."""
    copy = frozen.extra.reference
    return frozen.base if copy is None else attach.attach(frozen.base, copy)


def asked(
    params: Any, rows: layout.Rows, config: ModelConfig, *, temperature: float
) -> tuple[token_logps.TokenLogps, jax.Array]:
    """Returns what a policy says of completions, [P, G, N], and its hidden states [P, G, N + 1, D]."""
    hidden = layout.hidden(params, rows, config)
    return layout.logps(params, hidden, rows, config, temperature=temperature), hidden


def logps(params: Any, rows: layout.Rows, config: ModelConfig, *, temperature: float) -> jax.Array:
    """Returns the log-probabilities of completions under a policy, [P, G, N]."""
    return asked(params, rows, config, temperature=temperature)[0].logps


def kl_metrics(mine: jax.Array, other: jax.Array, mask: jax.Array, valid: jax.Array) -> Metrics:
    """Returns KL(policy || reference) of whole completions in nats, by k1 (TRL's objective/kl) and by k3."""
    of_rows = lambda values: reduce.masked_mean(jnp.sum(values * mask, axis=-1), valid)
    return {KL: of_rows(kl.k1(mine, other)), "objective/kl_k3": of_rows(kl.k3(mine, other))}


def drift(mine: jax.Array, sampler: jax.Array, weights: jax.Array) -> Metrics:
    """Returns how far the sampler's log-probabilities are from a training forward's, in TRL's names."""
    apart = jnp.abs(mine - sampler)
    return {
        "sampling/sampling_logp_difference/mean": reduce.masked_mean(apart, weights),
        "sampling/sampling_logp_difference/max": jnp.max(jnp.where(weights != 0, apart, 0.0)),
    }


def experience_of(
    run: rollout.Rollout, policy_of: Callable[[Any], Any], look: Callable[..., tuple[Any, Metrics]], *, most_kl: float
) -> Callable[[Any, algorithm.Frozen, Any, jax.Array], tuple[Experience]]:
    """Returns the experience of an algorithm: completions of its sampler, and what `look` makes of them.

    The sampler is the policy, or the copy that lags behind it. `look(trainable, frozen, completed) -> (rows, told)` is
    compiled. A UserError is raised where the KL is above `most_kl`, before anything is learned.
    """
    compiled = jax.jit(look)

    def experience(trainable: Any, frozen: algorithm.Frozen, batch: Any, key: jax.Array) -> tuple[Experience]:
        sampler = frozen.extra.sampler
        params = attach.attach(frozen.base, policy_of(trainable) if sampler is None else sampler)
        done, told = run(params, frozen.base, batch, jax.random.fold_in(key, _DRAWS))
        rows, more = compiled(trainable, frozen, done)
        if KL in more:
            refuse_far(more, most_kl)
        return (Experience(rows, told | more),)

    return experience


def refuse_far(told: Metrics, most: float) -> None:
    """Raises UserError where the policy has gone further from its reference than it may."""
    found = float(told[KL])
    if not found <= most:
        raise UserError(
            f"the KL to the reference is {found:.4g} nats a completion, above config.stop.kl {most:g}: the policy has "
            "left what its reward was learned on. Go on from an earlier checkpoint with a lower "
            "config.optimizer.learning_rate or a higher config.loss.kl_coefficient, or raise config.stop.kl"
        )


def algorithm_of(
    *,
    init: Callable[[jax.Array, Any], Any],
    experience: Callable[..., Any],
    loss: Callable[..., Any],
    carrying: Carrying,
    policy_of: Callable[[Any], Any],
    terms: int,
) -> Algorithm:
    """Returns the algorithm with its extra and its reference."""
    return Algorithm(
        init=init,
        experience=experience,
        loss=loss,
        extra=carrying.extra(policy_of),
        reference=None if carrying.reference == "none" else reference,
        terms=terms,
        policy=policy_of,
    )
