"""Losses of policy gradients and of the values beside them, per token and never reduced.

Old log-probabilities, advantages and returns are data: what made them gets no gradient through the loss that a caller
differentiates by `logps` or `values`. Which tokens count, and what the sum is divided by, is the business of the
weights (`losses/normalise.py`). Every loss here is proportional to the advantages where these keep their sign, so an
importance weight (`truncated_importance`) goes into them, and the KL penalty, which it must not touch, is added after.
Names of metrics are TRL's: PPO's trainer for `ppo` and `value`, GRPO's for the rest.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ftjax.losses import ratios

Loss = tuple[Float[Array, "B T"], dict[str, Float[Array, "B T"]]]


def ppo(
    *,
    logps: Float[Array, "B T"],
    old_logps: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    clip_low: float,
    clip_high: float,
) -> Loss:
    """Returns max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high)) with ratio = pi / pi_old, and TRL's metrics.

    The clipped surrogate of Schulman et al. 2017, equation 7, as a loss; DAPO's clip-higher where the two differ. In
    the first update after a rollout the ratio is 1 and approxkl 0: anything else means that the log-probabilities of
    the rollout are not those of the update. approxkl is (log ratio)^2 / 2, the estimator k2 of KL(pi_old || pi).
    """
    log_ratio = ratios.log_ratio(logps, old_logps)
    losses, low, high = _clipped(log_ratio, advantages, clip_low, clip_high)
    metrics = {
        "policy/approxkl_avg": jnp.square(log_ratio) / 2,
        "policy/clipfrac_avg": low + high,
        "val/ratio": jnp.exp(log_ratio),
    }
    return losses, jax.lax.stop_gradient(metrics)


def dual_clip(losses: Float[Array, "B T"], advantages: Float[Array, "B T"], *, bound: float) -> Loss:
    """Returns the losses of a clipped surrogate, at most -bound A where A < 0, and the share where that was less.

    Dual clip (Ye et al. 2020): a token that was bad and has become much likelier has no limit to its loss
    in PPO. `bound` is the largest ratio that counts there, 3 in the paper; TRL calls it delta. Goes before a penalty.
    """
    limited = jnp.where(advantages < 0, jnp.minimum(losses, -bound * advantages), losses)
    metrics = {"policy/dual_clipfrac_avg": (limited < losses).astype(losses.dtype)}
    return limited, jax.lax.stop_gradient(metrics)


def clipped_surrogate(
    *,
    logps: Float[Array, "B T"],
    old_logps: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    clip_low: float,
    clip_high: float,
) -> Loss:
    """Returns the loss of `ppo` with the metrics of GRPO's trainer: GRPO without a reference, Dr. GRPO and DAPO.

    `clip_ratio/low_mean` counts bad tokens whose ratio is below the clip, `high_mean` good ones above it, `region_mean`
    both.
    """
    return _surrogate(ratios.log_ratio(logps, old_logps), advantages, clip_low, clip_high)


def kl_penalty(*, logps: Float[Array, "B T"], reference: Float[Array, "B T"], beta: float) -> Loss:
    """Returns beta k3 of the policy to its reference, and k3 itself as `kl` (DeepSeekMath, Shao et al. 2024, eq. 4).

    Its value is an unbiased estimate of the KL on samples of the policy, its gradient none of the KL's: it is that of
    the KL with the two policies in each other's place, after the prefix alone. So the policy that it holds has less
    reward than its KL allows (docs/repro.md, PPO's kin); k1 in the score holds the KL itself.
    """
    found = ratios.k3(ratios.log_ratio(logps, reference))
    return beta * found, {"kl": jax.lax.stop_gradient(found)}


def grpo(
    *,
    logps: Float[Array, "B T"],
    old_logps: Float[Array, "B T"],
    reference: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    clip_low: float,
    clip_high: float,
    beta: float,
) -> Loss:
    """Returns `clipped_surrogate` plus `kl_penalty`, and the metrics of both (Shao et al. 2024, eq. 3)."""
    losses, metrics = clipped_surrogate(
        logps=logps, old_logps=old_logps, advantages=advantages, clip_low=clip_low, clip_high=clip_high
    )
    penalty, nats = kl_penalty(logps=logps, reference=reference, beta=beta)
    return losses + penalty, metrics | nats


def gspo(
    *,
    logps: Float[Array, "B T"],
    old_logps: Float[Array, "B T"],
    mask: Float[Array, "B T"],
    advantages: Float[Array, " B"],
    clip_low: float,
    clip_high: float,
) -> Loss:
    """Returns the clipped surrogate of the ratio of a whole completion, the same at each of its tokens.

    The ratio is exp of the mean over tokens of log (pi / pi_old) (GSPO, Zheng et al. 2025, eq. 5 to 7), so its clips
    are a thousandth of GRPO's. `mask` is 1 at the tokens of a completion. The paper's objective and TRL's metrics are
    means over completions: `normalise.per_sequence`.
    """
    log_ratio = jnp.broadcast_to(_of_sequence(logps, old_logps, mask), logps.shape)
    every = jnp.broadcast_to(advantages[:, None], logps.shape)
    return _surrogate(log_ratio, every, clip_low, clip_high)


def gspo_token(
    *,
    logps: Float[Array, "B T"],
    old_logps: Float[Array, "B T"],
    mask: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    clip_low: float,
    clip_high: float,
) -> Loss:
    """Returns the loss of `gspo` with an advantage for each token (GSPO-token, Zheng et al. 2025, eq. 13 and 14).

    The ratio of a token has the value of the completion's and the gradient of its own log-probability. With equal
    advantages and `normalise.per_sequence` value and gradient are those of `gspo`.
    """
    own = logps - jax.lax.stop_gradient(logps)  # 0, with a gradient
    log_ratio = jax.lax.stop_gradient(_of_sequence(logps, old_logps, mask)) + own
    return _surrogate(log_ratio, advantages, clip_low, clip_high)


def cispo(
    *,
    logps: Float[Array, "B T"],
    old_logps: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    clip_low: float,
    clip_high: float,
) -> Loss:
    """Returns -A w log pi with w = clip(ratio, 1 - clip_low, 1 + clip_high) without gradient (MiniMax-M1, eq. 4, 5).

    No token loses its gradient, however far its ratio. A clip_low of 1 is no lower bound, as in the paper; TRL's
    epsilon_high is 1 + clip_high. `cispo_clip_ratio` counts good tokens above the clip.
    """
    ratio = jax.lax.stop_gradient(jnp.exp(ratios.log_ratio(logps, old_logps)))
    weight = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    over = (ratio > 1.0 + clip_high) & (advantages > 0)
    return -advantages * weight * logps, {"cispo_clip_ratio": over.astype(logps.dtype)}


def reinforce(*, logps: Float[Array, "B T"], advantages: Float[Array, "B T"]) -> Loss:
    """Returns -A log pi, whose gradient on samples of the policy itself is that of -E[reward] (Williams 1992).

    `entropy` is -log pi, whose mean over samples of the policy is its entropy.
    """
    return -advantages * logps, {"entropy": jax.lax.stop_gradient(-logps)}


def value(
    *,
    values: Float[Array, "B T"],
    old_values: Float[Array, "B T"],
    returns: Float[Array, "B T"],
    clip: float,
) -> Loss:
    """Returns max((V - R)^2, (V' - R)^2) / 2, where V' is V at most `clip` away from the old value, and TRL's metric.

    As in OpenAI's baselines and lm-human-preferences: a value that has moved further than `clip` towards its return
    gets no gradient until the next rollout.
    """
    near = jnp.clip(values, old_values - clip, old_values + clip)
    plain, limited = jnp.square(values - returns), jnp.square(near - returns)
    metrics = {"val/clipfrac_avg": (limited > plain).astype(plain.dtype)}
    return jnp.maximum(plain, limited) / 2, jax.lax.stop_gradient(metrics)


def truncated_importance(
    old_logps: Float[Array, "B T"], sampler_logps: Float[Array, "B T"], *, cap: float
) -> Float[Array, "B T"]:
    """Returns min(pi_old / pi_sampler, cap) of each token, without gradient: what its advantage is multiplied by.

    For a sampler that is not the policy of the update: one that lags, or computes in fewer bits (truncated importance
    sampling, Yao et al. 2025; TRL's `token_truncate`, where the cap is vllm_importance_sampling_clip_max).
    """
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(ratios.log_ratio(old_logps, sampler_logps)), cap))


def truncated_sequence_importance(
    old_logps: Float[Array, "B T"], sampler_logps: Float[Array, "B T"], mask: Float[Array, "B T"], *, cap: float
) -> Float[Array, " B"]:
    """Returns min(pi_old / pi_sampler, cap) of whole completions, without gradient (TRL's `sequence_truncate`).

    Unbiased but for the cap; its spread grows with the length of the completion.
    """
    sums = jnp.sum(jnp.where(mask != 0, old_logps - sampler_logps, 0.0), axis=1)
    largest = ratios.LARGEST
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(jnp.clip(sums, -largest, largest)), cap))


def drift(
    old_logps: Float[Array, "B T"], sampler_logps: Float[Array, "B T"], *, cap: float
) -> dict[str, Float[Array, "B T"]]:
    """Returns the metrics of a sampler that is not the policy of the update: log-probabilities apart, and weights."""
    apart = jax.lax.stop_gradient(jnp.abs(old_logps - sampler_logps))
    return {
        "sampling/sampling_logp_difference/mean": apart,
        "sampling/importance_sampling_ratio/mean": truncated_importance(old_logps, sampler_logps, cap=cap),
    }


def _clipped(log_ratio: Array, advantages: Array, clip_low: float, clip_high: float) -> tuple[Array, Array, Array]:
    """Returns the clipped surrogate as a loss, and where it was clipped: bad tokens below, good ones above."""
    ratio = jnp.exp(log_ratio)
    plain = -advantages * ratio
    losses = jnp.maximum(plain, -advantages * jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high))
    low = (ratio < 1.0 - clip_low) & (advantages < 0)
    high = (ratio > 1.0 + clip_high) & (advantages > 0)
    return losses, low.astype(plain.dtype), high.astype(plain.dtype)


def _surrogate(log_ratio: Array, advantages: Array, clip_low: float, clip_high: float) -> Loss:
    """Returns the clipped surrogate as a loss, and the metrics of GRPO's trainer."""
    losses, low, high = _clipped(log_ratio, advantages, clip_low, clip_high)
    metrics = {"clip_ratio/low_mean": low, "clip_ratio/high_mean": high, "clip_ratio/region_mean": low + high}
    return losses, jax.lax.stop_gradient(metrics)


def _of_sequence(logps: Array, old_logps: Array, mask: Array) -> Array:
    """Returns the mean over the tokens of a completion of log (pi / pi_old), [B, 1]; 0 for one without tokens."""
    counts = jnp.sum(mask != 0, axis=1, keepdims=True)
    sums = jnp.sum(jnp.where(mask != 0, logps - old_logps, 0.0), axis=1, keepdims=True)
    return jnp.clip(sums / jnp.maximum(counts, 1), -ratios.LARGEST, ratios.LARGEST)
