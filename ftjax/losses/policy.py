"""Losses of policy gradients and of the values beside them, per token.

Old log-probabilities, advantages and returns are data: what made them gets no gradient through the loss that a caller
differentiates by `logps` or `values`. Which tokens count is the weights' business, in the reduction.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST_LOG_RATIO = 20.0  # exp(20) = 4.9e8: far outside of any clip, and its gradients stay finite


def ppo(
    *,
    logps: Float[Array, "B T"],
    old_logps: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Array, "B T"], dict[str, Float[Array, "B T"]]]:
    """Returns max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high)) with ratio = pi / pi_old, and TRL's metrics.

    The clipped surrogate of Schulman et al. 2017, equation 7, as a loss; DAPO's clip-higher where the two differ. In
    the first update after a rollout the ratio is 1 and approxkl 0: anything else means that the log-probabilities of
    the rollout are not those of the update. approxkl is (log ratio)^2 / 2, the estimator k2 of KL(pi_old || pi).
    """
    log_ratio = jnp.clip(logps - old_logps, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    ratio = jnp.exp(log_ratio)
    plain = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    metrics = {
        "policy/approxkl_avg": jnp.square(log_ratio) / 2,
        "policy/clipfrac_avg": (clipped > plain).astype(plain.dtype),
        "val/ratio": ratio,
    }
    return jnp.maximum(plain, clipped), jax.lax.stop_gradient(metrics)


def value(
    *,
    values: Float[Array, "B T"],
    old_values: Float[Array, "B T"],
    returns: Float[Array, "B T"],
    clip: float,
) -> tuple[Float[Array, "B T"], dict[str, Float[Array, "B T"]]]:
    """Returns max((V - R)^2, (V' - R)^2) / 2, where V' is V at most `clip` away from the old value, and TRL's metric.

    As in OpenAI's baselines and lm-human-preferences: a value that has moved further than `clip` towards its return
    gets no gradient until the next rollout.
    """
    near = jnp.clip(values, old_values - clip, old_values + clip)
    plain, clipped = jnp.square(values - returns), jnp.square(near - returns)
    metrics = {"val/clipfrac_avg": (clipped > plain).astype(plain.dtype)}
    return jnp.maximum(plain, clipped) / 2, jax.lax.stop_gradient(metrics)
