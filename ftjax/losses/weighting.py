"""Weights of tokens and of pairs that go with any preference loss: LD-DPO and WPO."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ftjax.losses import preference
from ftjax.losses.preference import PairLengths, PairLogps


def length_desensitized(
    weights: Float[Array, "B T"], beyond: Float[Array, "B T"], *, ld_alpha: float
) -> Float[Array, "B T"]:
    """Returns the weights of tokens with those past the shorter completion of a pair times ld_alpha.

    LD-DPO (Liu et al. 2024): log-probabilities of policy and reference are to be summed under them. `beyond` is 1 at
    those tokens. An ld_alpha of 1 is the plain sum, of 0 a sum over as many tokens of both completions.
    """
    return weights * (1 - (1 - ld_alpha) * beyond)


def wpo(logps: PairLogps, log_sum_squares: PairLogps, *, lengths: PairLengths) -> Float[Array, " pairs"]:
    """Returns what to multiply each pair's loss by: how likely the policy is to write both completions; no gradient.

    exp of the sum, over both, of the mean over tokens of log p(token) - log sum_v p(v)^2 (Zhou et al. 2024, eq. 2 in
    its aligned form, TRL's use_weighting). Completions as the policy samples them get about 1, unlikely ones nearly 0.
    Both arguments are summed over tokens.
    """
    above = PairLogps(*(x - y for x, y in zip(logps, log_sum_squares, strict=True)))
    chosen, rejected = preference.per_token(above, lengths)
    return jax.lax.stop_gradient(jnp.exp(chosen + rejected))
