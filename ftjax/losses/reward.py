"""Losses of reward models: what scores of completions should say of their order.

Scores are read where a completion ends. A prompt with K ranked completions is K (K - 1) / 2 pairs, each of which the
batch weighs by 1 / their number (InstructGPT, Ouyang et al. 2022, eq. 1), so it counts as one element; `plackett_luce`
and `best_of` take the ranking as a whole instead. Metrics are TRL's, where a mean over pairs can give them:
`min_reward` and `max_reward` cannot. To add one, write a function of scores that returns a loss and metrics one an
element; the contract tests find it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

PairLoss = tuple[Float[Array, " pairs"], dict[str, Float[Array, " pairs"]]]
RowLoss = tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]
ABSENT = -1e30  # the score of a place without a completion: exp gives 0, and differences stay finite


def bradley_terry(
    chosen: Float[Array, " pairs"], rejected: Float[Array, " pairs"], *, margin: Float[Array, " pairs"]
) -> PairLoss:
    """Returns -log sigma(chosen - rejected - margin) of each pair.

    InstructGPT, eq. 1 (Ouyang et al. 2022); with a margin, how much better the chosen one is, Llama 2, eq. 2 (Touvron
    et al. 2023). A margin of 0 is none. Accuracy and the metric `margin` are of scores alone.
    """
    gap = chosen - rejected
    metrics = {
        "accuracy": (gap > 0).astype(jnp.float32),
        "margin": gap,
        "mean_reward": (chosen + rejected) / 2,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
    }
    return -jax.nn.log_sigmoid(gap - margin), jax.lax.stop_gradient(metrics)


def centring(chosen: Float[Array, " pairs"], rejected: Float[Array, " pairs"], *, coefficient: float) -> PairLoss:
    """Returns coefficient * (chosen + rejected)^2 of each pair, to be added to another loss (Eisenstein et al. 2023).

    Bradley-Terry does not fix the level of scores; this keeps their mean at 0. TRL's center_rewards_coefficient.
    """
    loss = coefficient * jnp.square(chosen + rejected)
    return loss, {"centring": jax.lax.stop_gradient(loss)}


def pointwise(
    scores: Float[Array, " n"], *, labels: Float[Array, " n"]
) -> tuple[Float[Array, " n"], dict[str, Float[Array, " n"]]]:
    """Returns the binary cross entropy -y log sigma(score) - (1 - y) log sigma(-score) of each label y in [0, 1].

    Accuracy: whether score > 0 says what y > 0.5 says.
    """
    loss = -labels * jax.nn.log_sigmoid(scores) - (1 - labels) * jax.nn.log_sigmoid(-scores)
    agree = ((scores > 0) == (labels > 0.5)).astype(jnp.float32)
    return loss, {"accuracy": agree, "mean_reward": jax.lax.stop_gradient(scores)}


def best_of(scores: Float[Array, "B K"], *, best: Int[Array, " B"], present: Float[Array, "B K"]) -> RowLoss:
    """Returns -log softmax(scores)[best] of each prompt: one pick among K completions (Ziegler et al. 2019, eq. 1).

    `present` is 0 at places without a completion. For K = 2 it is Bradley-Terry.
    """
    scores = jnp.where(present != 0, scores, ABSENT)
    picked = jnp.take_along_axis(scores, best[:, None], axis=1)[:, 0]
    top = jnp.argmax(scores, axis=1) == best
    return jax.nn.logsumexp(scores, axis=1) - picked, {"accuracy": top.astype(jnp.float32)}


def plackett_luce(scores: Float[Array, "B K"], *, present: Float[Array, "B K"]) -> RowLoss:
    """Returns -log of the probability of each ranking, the scores being in its order, best first.

    sum over k of logsumexp(s_k, s_(k+1), ..) - s_k (Plackett 1975; Xia et al. 2008, ListMLE): the best is picked, then
    the best of the rest. `present` is 0 at places without a completion, anywhere in the row. For K = 2 it is
    Bradley-Terry. Accuracy: the share of picks, but for the last, that had the best score of what was left.
    """
    live = present != 0
    follows = jnp.triu(jnp.ones((scores.shape[1],) * 2, bool))[None]  # [1, K, K]: the second is the first, or after it
    left_BKK = jnp.where(follows & live[:, None], scores[:, None], ABSENT)
    loss = jnp.sum(jnp.where(live, jax.nn.logsumexp(left_BKK, axis=2) - scores, 0.0), axis=1)
    rival = jnp.max(jnp.where(jnp.eye(scores.shape[1], dtype=bool)[None], ABSENT, left_BKK), axis=2)
    counted = live & (rival > ABSENT)
    accuracy = jnp.sum(counted & (scores > rival), axis=1) / jnp.maximum(jnp.sum(counted, axis=1), 1)
    return loss, {"accuracy": accuracy.astype(jnp.float32)}
