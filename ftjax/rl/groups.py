"""Advantages of completions among those of the same prompt, and which completion or group to take.

Arrays are [P, G], G completions for each of P prompts; `valid` is 1 where there is a score and 0 where its reward
failed: such a place changes no other, whatever number stands there, and has the advantage 0. In a group with a single
valid score there is nothing to compare: its advantage is 0 as well. To add a method, write a function of these arrays.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ftjax.errors import UserError
from ftjax.losses import reduce
from ftjax.rl import advantages


class Moments(NamedTuple):
    """Of the valid scores of each group."""

    number: jax.Array  # [P, 1]
    apart: jax.Array  # [P, G]: score less mean, 0 where a score is not valid
    deviation: jax.Array  # [P, 1], with count - 1 as the divisor; 0 of a single score


class Best(NamedTuple):
    """The completion of the highest score in each group, [P]; the first of several."""

    place: jax.Array
    present: jax.Array  # whether any score is valid; else the place means nothing


class Extremes(NamedTuple):
    """The completions of the highest and the lowest score in each group, [P]."""

    chosen: jax.Array
    rejected: jax.Array
    present: jax.Array  # whether the two scores differ; else there is no preference


def grpo(scores: Float[Array, "P G"], valid: Float[Array, "P G"], *, eps: float) -> Float[Array, "P G"]:
    """Returns (r - mean) / (std + eps) of each group, std with ddof 1 (Shao et al. 2024; TRL, with an eps of 1e-4)."""
    found = moments(scores, valid)
    return found.apart / (found.deviation + eps)


def centred(scores: Float[Array, "P G"], valid: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """Returns r - mean of each group: Dr. GRPO (Liu et al. 2025), GRPO without the std that weighs prompts unequally.

    (1 - 1/n) of `rloo` where n scores are valid.
    """
    return moments(scores, valid).apart


def rloo(scores: Float[Array, "P G"], valid: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """Returns r less the mean of the other scores of its group (Ahmadian et al. 2024, section 2.3): unbiased.

    Of n valid scores that is n / (n - 1) (r - mean). Their KL penalty is part of the score: -beta times the sum over
    the completion's tokens of k1.
    """
    found = moments(scores, valid)
    return found.number / jnp.maximum(found.number - 1, 1.0) * found.apart


def reinforce_plus_plus(
    scores: Float[Array, "P G"],
    valid: Float[Array, "P G"],
    lengths: Float[Array, "P G"],
    *,
    ddof: int,
    eps: float,
) -> Float[Array, "P G"]:
    """Returns r - mean of each group, whitened over all tokens of the batch (REINFORCE++-baseline, Hu et al. 2025).

    The moments are those of an array of tokens in which each has its completion's number, so a completion counts as
    often as it has tokens (`lengths`). The whole batch belongs into one call. A group of equal scores is whitened with
    the rest, and gets -mean / std where longer completions have other scores than shorter ones.
    """
    found = moments(scores, valid)
    compared = jnp.where(found.number > 1, valid, 0.0)
    return advantages.whiten(found.apart, compared * lengths, ddof=ddof, eps=eps)


def signal(scores: Float[Array, "P G"], valid: Float[Array, "P G"]) -> Bool[Array, " P"]:
    """Tells of each group whether its valid scores differ, so that any method gives it a gradient.

    DAPO's dynamic sampling (Yu et al. 2025, eq. 11): groups without signal are left out, and others drawn until the
    batch is full.
    """
    return _highest(scores, valid).max(axis=1) > -_highest(-scores, valid).max(axis=1)


def best(scores: Float[Array, "P G"], valid: Float[Array, "P G"]) -> Best:
    """Returns the best of the G completions of each prompt: best-of-n, and what rejection-sampling (RAFT) trains on."""
    return Best(_highest(scores, valid).argmax(axis=1), (valid != 0).any(axis=1))


def best_and_worst(scores: Float[Array, "P G"], valid: Float[Array, "P G"]) -> Extremes:
    """Returns the best and the worst completion of each prompt: the pairs of online DPO."""
    high, low = _highest(scores, valid).argmax(axis=1), _highest(-scores, valid).argmax(axis=1)
    return Extremes(high, low, signal(scores, valid))


def kl_of_best(n: int) -> float:
    """Returns log n - (n - 1) / n, the most that the best of n can be away from the policy in KL.

    It is the KL itself where no two completions have the same score and none is likely (Beirami et al. 2024).
    """
    return math.log(n) - (n - 1) / n


def metrics(scores: Float[Array, "P G"], valid: Float[Array, "P G"]) -> dict[str, Float[Array, ""]]:
    """Returns TRL's metrics of a rollout: mean and std (ddof 1) of all scores, and the share of groups without signal.

    Groups of which no score is valid count as without.
    """
    mean = reduce.masked_mean(scores, valid)
    count = jnp.sum(valid != 0)
    squares = reduce.masked_sum(jnp.square(scores - mean), valid)
    return {
        "reward": mean,
        "reward_std": jnp.sqrt(squares / jnp.maximum(count - 1, 1)),
        "frac_reward_zero_std": 1.0 - jnp.mean(signal(scores, valid).astype(jnp.float32)),
    }


def moments(scores: Float[Array, "P G"], valid: Float[Array, "P G"]) -> Moments:
    """Returns count, differences from the mean, and std of each group; raises UserError for groups of one completion.

    The differences are taken from the highest score first, so that in a group of equal scores they are exactly 0.
    """
    if scores.shape[1] < 2:
        raise UserError(
            "1 completion for each prompt: a method that compares completions of one prompt needs 2 or more;"
            " ask for more of them, or take a method with a value model (ppo)"
        )
    counts = valid != 0
    count = jnp.sum(counts, axis=1, keepdims=True).astype(jnp.float32)
    below = jnp.where(counts, scores - _highest(scores, valid).max(axis=1, keepdims=True), 0.0)
    mean = jnp.sum(below, axis=1, keepdims=True) / jnp.maximum(count, 1.0)
    apart = jnp.where(counts, below - mean, 0.0)
    squares = jnp.sum(jnp.square(apart), axis=1, keepdims=True)
    return Moments(count, apart, jnp.sqrt(squares / jnp.maximum(count - 1, 1.0)))


def _highest(scores: Array, valid: Array) -> Array:
    """Returns the scores with -inf where none is valid."""
    return jnp.where(valid != 0, scores, -jnp.inf)
