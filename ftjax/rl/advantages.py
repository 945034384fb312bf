"""From scores to advantages: rewards of tokens, generalised advantage estimation, whitening."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ftjax.losses import reduce


def token_rewards(
    *,
    penalties: Float[Array, "B T"],
    scores: Float[Array, " B"],
    ends: Int[Array, " B"],
    weights: Float[Array, "B T"],
) -> Float[Array, "B T"]:
    """Returns -penalty of each token, and the completion's score besides at the index `ends` (Ziegler et al. 2019).

    `penalties` are an estimate of the KL to the reference times its coefficient. `ends` is the last token of the
    completion, or in TRL's form the place after it, which `weights` must then count.
    """
    at_end = jnp.arange(penalties.shape[1])[None, :] == ends[:, None]
    return jnp.where(weights != 0, jnp.where(at_end, scores[:, None], 0.0) - penalties, 0.0)


def gae(
    *,
    rewards: Float[Array, "B T"],
    values: Float[Array, "B T"],
    weights: Float[Array, "B T"],
    gamma: float,
    lam: float,
) -> Float[Array, "B T"]:
    """Returns sum_l (gamma lam)^l delta_(t+l), delta_t = r_t + gamma V_(t+1) - V_t (Schulman et al. 2016, eq. 16).

    The value after the last token is 0. The tokens that count are one stretch of the row, with padding before it or
    after it. The returns that the values are trained on are advantages + values, of the advantages before whitening.
    """
    counts = weights != 0
    rewards, values = jnp.where(counts, rewards, 0.0), jnp.where(counts, values, 0.0)
    later = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    deltas = rewards + gamma * later - values

    def back(advantage: Float[Array, " B"], delta: Float[Array, " B"]) -> tuple[Array, Array]:
        advantage = delta + gamma * lam * advantage
        return advantage, advantage

    _, found_TB = jax.lax.scan(back, jnp.zeros_like(deltas[:, 0]), deltas.T, reverse=True)
    return jnp.where(counts, found_TB.T, 0.0)


def whiten(values: Float[Array, "B T"], weights: Float[Array, "B T"], *, ddof: int, eps: float) -> Float[Array, "B T"]:
    """Returns (x - mean) / sqrt(variance + eps) over the elements that count.

    `ddof` 0 is the population's variance (lm-human-preferences), 1 the sample's (TRL).
    """
    mean, scale = _moments(values, weights, ddof, eps)
    return jnp.where(weights != 0, (values - mean) * scale, 0.0)


def rescale(values: Float[Array, "B T"], weights: Float[Array, "B T"], *, ddof: int, eps: float) -> Float[Array, "B T"]:
    """Returns (x - mean) / sqrt(variance + eps) + mean: whitening with `shift_mean=False`, which rewards get."""
    mean, scale = _moments(values, weights, ddof, eps)
    return jnp.where(weights != 0, (values - mean) * scale + mean, 0.0)


def _moments(values: Array, weights: Array, ddof: int, eps: float) -> tuple[Array, Array]:
    """Returns the mean and 1 / sqrt(variance + eps); two passes, as a mean far from 0 costs float32 its digits."""
    mean = reduce.masked_mean(values, weights)
    count = jnp.sum(weights, dtype=jnp.float32)
    # One element has no sample variance: it counts as 0, so the element becomes 0 and not NaN.
    variance = reduce.masked_sum(jnp.square(values - mean), weights) / jnp.maximum(count - ddof, 1.0)
    return mean, jax.lax.rsqrt(variance + eps)
