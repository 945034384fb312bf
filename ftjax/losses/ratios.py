"""Log ratios of two policies at tokens, bounded so that exp of them and its gradient stay finite."""

import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST = 20.0  # exp(20) = 4.9e8: far outside of any clip


def log_ratio(logps: Float[Array, "*shape"], others: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns log (pi / other), at most 20 in size; outside of that it has no gradient."""
    return jnp.clip(logps - others, -LARGEST, LARGEST)


def k3(log_ratios: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns exp(-x) - 1 + x of x = log (pi / other): the estimator k3 of KL(pi || other), see `rl/kl.py`."""
    return jnp.expm1(-log_ratios) + log_ratios
