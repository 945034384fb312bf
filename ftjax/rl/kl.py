"""The KL from the policy to its reference: estimates from sampled tokens, and the controllers that hold it at a target.

With x = log pi - log ref of tokens drawn from pi (Schulman 2020, "Approximating KL divergence"): k1 is unbiased and may
be negative, k2 is biased with little variance, k3 is unbiased and never negative.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ftjax.losses import ratios


def k1(logps: Float[Array, "*shape"], reference: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x = log pi - log ref; its mean over samples of pi is KL(pi || ref)."""
    return logps - reference


def k2(logps: Float[Array, "*shape"], reference: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x^2 / 2."""
    return jnp.square(logps - reference) / 2


def k3(logps: Float[Array, "*shape"], reference: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns exp(-x) - 1 + x: k1 with a control variate of mean 0.

    x is at most 20 in size, as k3 grows like exp(-x): one token that the policy has all but dropped must not make it
    infinite.
    """
    return ratios.k3(ratios.log_ratio(logps, reference))


def adapt_by_paper(
    coefficient: Float[Array, ""], kl: Float[Array, ""], *, target: float, gain: float
) -> Float[Array, ""]:
    """Returns coefficient (1 + gain clip(kl / target - 1, -.2, .2)) after a batch (Ziegler et al. 2019, section 2.2).

    `kl` is the mean over completions of the KL of a whole completion. The paper's gain is .1 a batch of any size.
    """
    return coefficient * (1.0 + gain * _error(kl, target))


def adapt_by_code(
    coefficient: Float[Array, ""], kl: Float[Array, ""], *, target: float, horizon: float, episodes: int
) -> Float[Array, ""]:
    """Returns coefficient (1 + episodes / horizon clip(kl / target - 1, -.2, .2)), as lm-human-preferences has it.

    `episodes` is the completions of a batch and the horizon 10,000 there: .0512 for a batch of 512, half the paper's.
    """
    return coefficient * (1.0 + episodes / horizon * _error(kl, target))


def _error(kl: Array, target: float) -> Array:
    return jnp.clip(kl / target - 1.0, -0.2, 0.2)
