"""Losses of single completions that are labelled desirable or not: KTO and the unpaired form of APO.

To add one, write a function `name(policy, reference, *, desirable, ...)` that returns a loss and metrics one a
completion; the contract tests find it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ftjax.losses import reduce

Metrics = dict[str, Float[Array, " n"]]
Loss = tuple[Float[Array, " n"], Metrics]


def mismatched_kl(
    policy: Float[Array, " n"], reference: Float[Array, " n"], *, weights: Float[Array, " n"]
) -> Float[Array, ""]:
    """Returns max(0, mean of log pi - log ref) over completions that were paired with other prompts; without gradient.

    The reference point z0 of KTO (Ethayarajh et al. 2024, section 4.1): as a completion of another prompt is no
    sample of the policy, this is a biased but cheap KL. `weights` (0: a place of padding) weigh the mean.
    """
    return jax.lax.stop_gradient(jnp.maximum(reduce.masked_mean(policy - reference, weights), 0.0))


def kto(
    policy: Float[Array, " n"],
    reference: Float[Array, " n"],
    *,
    desirable: Float[Array, " n"],
    kl: Float[Array, ""],
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Loss:
    """Returns 1 - sigma(beta (x - kl)) of each desirable and 1 - sigma(beta (kl - x)) of each other completion.

    Times the weight of its kind. x = log pi - log ref summed over tokens; Ethayarajh et al. 2024, eq. 7. `kl` is
    `mismatched_kl` of the same batch.
    """
    x = policy - reference - jax.lax.stop_gradient(kl)
    loss = _by_label(beta * x, desirable, desirable_weight, undesirable_weight)
    return loss, _metrics(policy, reference, beta) | {"kl": jnp.broadcast_to(jax.lax.stop_gradient(kl), x.shape)}


def apo_zero_unpaired(
    policy: Float[Array, " n"],
    reference: Float[Array, " n"],
    *,
    desirable: Float[Array, " n"],
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Loss:
    """Returns `kto` with a reference point of 0 (D'Oosterlinck et al. 2024, eq. 7, without partners)."""
    loss = _by_label(beta * (policy - reference), desirable, desirable_weight, undesirable_weight)
    return loss, _metrics(policy, reference, beta)


def _by_label(
    z: jax.Array, desirable: jax.Array, desirable_weight: float, undesirable_weight: float
) -> Float[Array, " n"]:
    wanted, unwanted = desirable_weight * jax.nn.sigmoid(-z), undesirable_weight * jax.nn.sigmoid(z)
    return jnp.where(desirable != 0, wanted, unwanted)


def _metrics(policy: jax.Array, reference: jax.Array, beta: float) -> Metrics:
    policy, reference = jax.lax.stop_gradient((policy, reference))
    return {"rewards": beta * (policy - reference), "logps": policy}


def metrics(
    policy: Float[Array, " n"],
    reference: Float[Array, " n"],
    *,
    desirable: Float[Array, " n"],
    weights: Float[Array, " n"],
    beta: float,
) -> dict[str, reduce.Weighted]:
    """Returns TRL's metrics of KTO: rewards and log-probabilities, means over the desirable and over the others.

    Each has the weights of its kind, so a batch without one of them says nothing of it. TRL's margin is the difference
    of the two means (`reduce.means`).
    """
    policy, reference = jax.lax.stop_gradient((policy, reference))
    rewards = beta * (policy - reference)
    found: dict[str, reduce.Weighted] = {}
    for name, of in (("chosen", desirable != 0), ("rejected", desirable == 0)):
        own = jnp.where(of, weights, 0.0)
        found |= {
            f"rewards/{name}": reduce.Weighted(rewards, own),
            f"logps/{name}": reduce.Weighted(policy, own),
        }
    return found
