"""f-divergences in place of the reverse KL of DPO (f-DPO, Wang et al. 2023), and the losses that they fit.

A divergence is given as f'(t) of t = pi / ref = exp(x), up to a factor and with f'(1) = 0, as a function of x: the
score that takes the place of log t. To add one, write a function of x.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ftjax.losses import preference
from ftjax.losses.preference import PairLogps

# Losses of the difference of the two scores. The others are made of log-ratios by themselves, which f' does not fit.
DIFFERENCE_BASED = ("dpo", "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop")
LARGEST = 80.0  # exp of more leaves float32; TRL's number


def shaped(policy: PairLogps, reference: PairLogps, f: Callable[[jax.Array], jax.Array]) -> tuple[PairLogps, PairLogps]:
    """Returns what a loss of DIFFERENCE_BASED takes as policy and reference: f(policy - reference), and 0.

    Not reference + f(policy - reference) and the reference: at log-probabilities of -500 that sum keeps 4 decimals of
    f. Metrics of such a loss are of the scores; `preference.metrics` of the true log-probabilities are TRL's.
    """
    scores = PairLogps(*(f(x) for x in preference.ratios(policy, reference)))
    return scores, PairLogps(*map(jnp.zeros_like, scores))


def reverse_kl(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x = log t: DPO itself."""
    return x


def forward_kl(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns 1 - 1 / t = 1 - exp(-x), which covers what the reference does; constant below x = -80.

    There TRL's goes on, to infinity at -89.
    """
    return -jnp.expm1(jnp.minimum(-x, LARGEST))


def js_divergence(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns log(2 t / (1 + t)) = log 2 + log sigma(x): a score of at most log 2."""
    return jnp.log(2.0) + jax.nn.log_sigmoid(x)


def alpha_divergence(x: Float[Array, "*shape"], *, coefficient: float) -> Float[Array, "*shape"]:
    """Returns (t^(a - 1) - 1) / (a - 1) with a the coefficient: 0 is the forward KL, 1 (the limit) the reverse KL.

    The exponent (a - 1) x is cut at 80, as TRL's. There `ipo`, which squares, still overflows.
    """
    if abs(coefficient - 1) < 1e-6:
        return x
    return jnp.expm1(jnp.minimum((coefficient - 1) * x, LARGEST)) / (coefficient - 1)
