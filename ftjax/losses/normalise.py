"""What a loss of tokens is divided by: losses and weights that make the step's one division the mean a method wants.

The step divides the sum of losses times weights by the sum of weights, over all microbatches and devices. Every weight
here is made of its own row alone, so neither can change a result, and none of these needs the whole batch. What does is
done where the batch is whole, before it is split into minibatches: means and deviations of groups (`rl/groups.py`) and
whitening over the batch (`rl/advantages.py`). The sum of weights is that of a step's minibatch, as in TRL.

`mask` is 1 at the tokens of a completion, `rows` 1 for the completions that take part: 0 takes one out of numerator and
denominator, where its reward failed, its group has no signal, or, as an option of the method, it never ended
(`rows = valid * ended`). TRL's mask_truncated_completions leaves such a row in the denominator of `per_sequence` and
`per_length`.

Metrics are means under the weights of the loss unless they bring their own. Those of TRL are means over tokens:
`metrics_of_tokens`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ftjax.losses import reduce


class Normalised(NamedTuple):
    """What the step sums: losses, already masked, and their weights."""

    losses: jax.Array  # [B, T]
    weights: jax.Array  # [B, T]


def per_sequence(losses: Float[Array, "B T"], mask: Float[Array, "B T"], rows: Float[Array, " B"]) -> Normalised:
    """Returns the mean over a completion's tokens, then over completions: GRPO, TRL's loss type `grpo`.

    A token of a short completion weighs more than one of a long one. A completion without tokens is not counted.
    """
    counts = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)
    weights = rows[:, None] * mask / jnp.maximum(counts, 1.0)
    return Normalised(_kept(losses, weights), weights)


def per_token(losses: Float[Array, "B T"], mask: Float[Array, "B T"], rows: Float[Array, " B"]) -> Normalised:
    """Returns the mean over all tokens: DAPO and CISPO, TRL's loss types `dapo`, `bnpo`, `cispo`.

    The two first differ in TRL in the tokens that they divide by, a batch's or a microbatch's; here it is the batch.
    """
    weights = rows[:, None] * mask
    return Normalised(_kept(losses, weights), weights)


def per_length(
    losses: Float[Array, "B T"],
    mask: Float[Array, "B T"],
    rows: Float[Array, " B"],
    *,
    max_completion_length: int,
) -> Normalised:
    """Returns the sum over tokens over (completions x max_completion_length): Dr. GRPO, TRL's loss type `dr_grpo`.

    Every place of a row has a weight, padding too, where the loss is 0: 1 where the rows are max_completion_length
    long, and otherwise so much that a row weighs max_completion_length.
    """
    length = losses.shape[1]
    share = max_completion_length / length
    weights = jnp.broadcast_to(share * rows[:, None], losses.shape)
    return Normalised(_kept(losses, rows[:, None] * mask) / share, weights)


def metrics_of_tokens(
    metrics: dict[str, Float[Array, "B T"]], mask: Float[Array, "B T"], rows: Float[Array, " B"]
) -> dict[str, reduce.Weighted]:
    """Returns the metrics as means over all tokens of those completions, whatever the loss is divided by."""
    return {name: reduce.Weighted(metric, rows[:, None] * mask) for name, metric in metrics.items()}


def _kept(losses: Array, weights: Array) -> Array:
    return jnp.where(weights != 0, losses, 0.0)
