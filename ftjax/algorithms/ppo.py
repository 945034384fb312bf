"""Proximal policy optimisation from a reward (Ziegler et al. 2019; Stiennon et al. 2020; Ouyang et al. 2022).

Policy, value, reference and reward are trees on ONE base: the policy's adapters, the value's with a head of one number
(or that head on the policy's own trunk), the base with nothing attached, and reward models beside it. A step draws
completions, scores them, and goes through them in epochs of minibatches (`train/epochs.py`). Numbers in comments are
the details of docs/ppo.md, which names a test for each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

from ftjax import tree
from ftjax.adapters import attach
from ftjax.algorithms import on_policy
from ftjax.algorithms.algorithm import Algorithm, Frozen, Metrics
from ftjax.losses import policy, reduce, supervised
from ftjax.models import decoder
from ftjax.models.config import ModelConfig
from ftjax.rl import advantages, kl, layout
from ftjax.rl.rollout import Completed, Rollout

Init = Callable[[jax.Array, Any], Any]


class Settings(NamedTuple):
    """Hyper-parameters of the loss and of what goes into it."""

    clip_low: float
    clip_high: float
    dual_clip: float  # largest ratio that counts where an advantage is negative; 0: no limit
    value_clip: float
    value_coefficient: float
    gamma: float
    lam: float
    kl_estimator: str  # k1 | k3, of the penalty in the reward
    score_at: str  # last (the last token) | next (the place after it, TRL)
    whiten_rewards: bool
    ddof: int  # of variances: 0 (OpenAI) | 1 (TRL)
    importance_cap: float  # of the correction for a sampler that lags; 0: none
    text_coefficient: float  # of ordinary text in the loss (PPO-ptx); 0: none


class Trainable(struct.PyTreeNode):
    """What trains."""

    policy: Any  # with a shared trunk its `score` is the value head
    value: Any  # adapters with a value head; None: shared trunk


class Learned(NamedTuple):
    """Completions as the updates see them; the first axis is the prompt, arrays are [P, G, N]."""

    rows: layout.Rows
    logps: jax.Array  # under the policy before the first update
    values: jax.Array
    advantages: jax.Array
    returns: jax.Array
    weights: jax.Array  # 1 for tokens of completions that have a score
    value_weights: jax.Array
    text: Any = None  # rows of ordinary text


class Targets(NamedTuple):
    """What completions are worth, [B, N]."""

    penalties: jax.Array  # the estimate of the KL of each token, before its coefficient
    rewards: jax.Array
    values: jax.Array  # 0 where there is none
    raw: jax.Array  # advantages before whitening
    returns: jax.Array
    advantages: jax.Array
    weights: jax.Array  # 1 for tokens of completions that have a score
    value_weights: jax.Array


def policy_of(trainable: Trainable) -> Any:
    """Returns the adapters of the language model."""
    return trainable.policy.replace(score=None)


def value_of(trainable: Trainable) -> Any:
    """Returns the adapters with the head of the value: those of the policy, where they share a trunk."""
    return trainable.policy if trainable.value is None else trainable.value


def with_values(init: Init, *, shared: bool) -> Init:
    """Returns the init of policy and value; the value head begins at 0 (20), so that the first values are."""

    def make_all(key: jax.Array, base: Any) -> Trainable:
        head = jnp.zeros((base.norm.shape[-1], 1), jnp.float32)
        adapters = init(key, base)
        if shared:  # (23)
            return Trainable(policy=adapters.replace(score=head), value=None)
        return Trainable(policy=adapters, value=init(tree.fold(key, "value"), base).replace(score=head))

    return make_all


def make(
    init: Init,
    config: ModelConfig,
    *,
    run: Rollout,
    settings: Settings,
    carrying: on_policy.Carrying,
    shared: bool,
    most_kl: float,
) -> Algorithm:
    """Returns the algorithm; `run` draws and scores, `most_kl` is the KL of a completion at which training stops."""
    temperature, s = run.settings.temperature, settings

    def values_of(trainable: Trainable, base: Any, rows: layout.Rows, hidden: jax.Array) -> jax.Array:
        if trainable.value is None:  # (23): the head reads the policy's own states
            return layout.values(trainable.policy, hidden)
        return layout.values(trainable.value, layout.hidden(attach.attach(base, trainable.value), rows, config))

    def look(trainable: Trainable, frozen: Frozen, done: Completed) -> tuple[Learned, Metrics]:
        rows, mask = done.rows, done.rows.mask
        # Dropout is off here and in the loss (19): a ratio of two forward passes must not be noise.
        mine, hidden = on_policy.asked(
            attach.attach(frozen.base, trainable.policy), rows, config, temperature=temperature
        )
        theirs, _ = on_policy.asked(on_policy.reference(frozen), rows, config, temperature=temperature)
        values = values_of(trainable, frozen.base, rows, hidden)[..., :-1]  # (1): before each token, of the whole text
        scores, told = on_policy.normalised(frozen.extra, done.scores, done.valid)
        found = targets(
            logps=layout.flat(mine.logps), reference=layout.flat(theirs.logps),
            values=layout.flat(values), mask=layout.flat(mask),
            scores=scores.reshape(-1), valid=done.valid.reshape(-1), coefficient=frozen.extra.coefficient, settings=s,
        )  # fmt: skip
        ready = found.advantages
        if s.importance_cap:
            ready *= policy.truncated_importance(
                layout.flat(mine.logps), layout.flat(done.sampler_logps), cap=s.importance_cap
            )
        back: Callable[[Any], Any] = lambda x: x.reshape(mask.shape)
        kept = (found.values, ready, found.returns, found.weights, found.value_weights)
        values, ready, returns, weights, value_weights = map(back, kept)
        learned = Learned(rows, mine.logps, values, ready, returns, weights, value_weights)
        of_rows = lambda x: reduce.masked_mean(jnp.sum(layout.flat(x) * found.weights, axis=1), done.valid.reshape(-1))
        cost = -frozen.extra.coefficient * of_rows(back(found.penalties))
        unexplained = _variance(found.returns - found.values, found.value_weights)
        spread = _variance(found.returns, found.value_weights)
        return learned, told | on_policy.kl_metrics(mine.logps, theirs.logps, mask, done.valid) | on_policy.drift(
            mine.logps, done.sampler_logps, weights
        ) | {
            "objective/entropy": of_rows(-mine.logps),
            "objective/non_score_reward": cost,
            "objective/rlhf_reward": cost + reduce.masked_mean(scores, done.valid),
            "objective/kl_coef": frozen.extra.coefficient,
            "policy/entropy_avg": reduce.masked_mean(layout.flat(mine.entropy), found.weights),
            "val/explained_variance": 1 - unexplained / jnp.maximum(spread, 1e-9),
        }

    drawn = on_policy.experience_of(run, policy_of, look, most_kl=most_kl)

    def experience(trainable: Trainable, frozen: Frozen, batch: Any, key: jax.Array) -> tuple[on_policy.Experience]:
        (found,) = drawn(trainable, frozen, batch, key)
        return (found._replace(rows=found.rows._replace(text=batch.text)),)

    def loss(trainable: Trainable, frozen: Frozen, batch: Learned, key: jax.Array | None) -> tuple[Any, Any, Metrics]:
        del key
        params = attach.attach(frozen.base, trainable.policy)
        out, hidden = on_policy.asked(params, batch.rows, config, temperature=temperature)
        losses, metrics = policy.ppo(  # (14), (25)
            logps=layout.flat(out.logps), old_logps=layout.flat(batch.logps), advantages=layout.flat(batch.advantages),
            clip_low=s.clip_low, clip_high=s.clip_high,
        )  # fmt: skip
        if s.dual_clip:
            losses, more = policy.dual_clip(losses, layout.flat(batch.advantages), bound=s.dual_clip)
            metrics |= more
        values = values_of(trainable, frozen.base, batch.rows, hidden)[..., :-1]
        errors, told = policy.value(  # (15)
            values=layout.flat(values),
            old_values=layout.flat(batch.values),
            returns=layout.flat(batch.returns),
            clip=s.value_clip,
        )
        weights, value_weights = layout.flat(batch.weights), layout.flat(batch.value_weights)
        of_values = {"loss/value_avg": jax.lax.stop_gradient(errors), **told}
        reported: Metrics = metrics | {"loss/policy_avg": jax.lax.stop_gradient(losses)}
        reported |= {name: reduce.Weighted(x, value_weights) for name, x in of_values.items()}
        terms: tuple[jax.Array, ...] = (losses, s.value_coefficient * errors)
        shares: tuple[jax.Array, ...] = (weights, value_weights)
        if s.text_coefficient:  # (24)
            t = batch.text
            said = decoder.logps(params, t.tokens, t.targets, t.weights, config, t.positions, t.segments)
            nats, _ = supervised.cross_entropy(logps=said.logps, entropy=said.entropy, correct=said.correct)
            terms, shares = (*terms, s.text_coefficient * nats), (*shares, t.weights)
            reported["loss/text_avg"] = reduce.Weighted(jax.lax.stop_gradient(nats), t.weights)
        return terms, shares, reported

    return on_policy.algorithm_of(
        init=with_values(init, shared=shared), experience=experience, loss=loss, carrying=carrying, policy_of=policy_of,
        terms=3 if s.text_coefficient else 2,
    )._replace(value=value_of)  # fmt: skip


def targets(
    *,
    logps: jax.Array,
    reference: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    scores: jax.Array,
    valid: jax.Array,
    coefficient: jax.Array,
    settings: Settings,
) -> Targets:
    """Returns rewards, returns and advantages of completions [B, N], whose `scores` and `valid` are [B].

    A completion that is not valid has no weight, whatever its score is, and moves no mean. `values` at n is that of the
    state before token n.
    """
    s = settings
    # Where there is no weight, a KL is 0 and a loss does not count: what a log-probability is there is no matter (10).
    weights = mask * valid[:, None]
    ends, value_weights = _score_places(mask, weights, valid, s.score_at)
    penalties = getattr(kl, s.kl_estimator)(logps, reference) * weights
    rewards = advantages.token_rewards(  # (8), (9)
        penalties=coefficient * penalties, scores=scores, ends=ends, weights=value_weights
    )
    if s.whiten_rewards:  # (13)
        rewards = advantages.rescale(rewards, value_weights, ddof=s.ddof, eps=1e-8)
    values = values * value_weights
    raw = advantages.gae(rewards=rewards, values=values, weights=value_weights, gamma=s.gamma, lam=s.lam)  # (12)
    ready = advantages.whiten(raw, weights, ddof=s.ddof, eps=1e-8)  # (13)
    return Targets(penalties, rewards, values, raw, raw + values, ready, weights, value_weights)


def _score_places(mask: jax.Array, weights: jax.Array, valid: jax.Array, score_at: str) -> tuple[jax.Array, jax.Array]:
    """Returns where a completion's score is paid, [B], and which places have a value that is learned, [B, N] (8)."""
    counts, length = jnp.sum(mask, axis=1).astype(jnp.int32), mask.shape[1]
    if score_at == "last":
        return counts - 1, weights
    ends = jnp.minimum(counts, length - 1)
    reached = jnp.arange(length)[None] <= ends[:, None]
    return ends, reached * valid[:, None]


def _variance(x: jax.Array, weights: jax.Array) -> jax.Array:
    return reduce.masked_mean(jnp.square(x - reduce.masked_mean(x, weights)), weights)
