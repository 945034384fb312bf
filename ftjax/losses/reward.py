"""Losses of reward models: what scores of completions should say of their order.

Scores are read where a completion ends. A prompt with K ranked completions is K (K - 1) / 2 pairs, each of which the
batch weighs by 1 / their number (InstructGPT, Ouyang et al. 2022, eq. 1), so it counts as one element. Metrics are
TRL's, where a mean over pairs can give them:
`min_reward` and `max_reward` cannot. To add one, write a function of scores that returns a loss and metrics one an
element; the contract tests find it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PairLoss = tuple[Float[Array, " pairs"], dict[str, Float[Array, " pairs"]]]


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
