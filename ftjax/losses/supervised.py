"""Losses of supervised fine-tuning, per token."""

from jaxtyping import Array, Float


def cross_entropy(
    *,
    logps: Float[Array, "B T"],
    entropy: Float[Array, "B T"],
    correct: Float[Array, "B T"],
) -> tuple[Float[Array, "B T"], dict[str, Float[Array, "B T"]]]:
    """Returns -log p of each target, and TRL's metrics: the entropy of the predictions and their top-1 accuracy.

    Which tokens count is the batch's business (its weights); the reduction is the step's.
    """
    return -logps, {"entropy": entropy, "mean_token_accuracy": correct}
