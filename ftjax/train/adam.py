"""Adam's direction, with bias corrections in full precision.

Float32 has no 0.999, so that 1 - 0.999^t, computed in it, is wrong by 2e-5 of itself from the first step on, and every
update by 1e-5. That is a drift, no noise: twenty steps of a reward model were 9e-5 from those in float64, where
PyTorch's, which corrects in float64, were 1e-6. With `correction` they are 4e-6.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax


def correction(decay: float, count: jax.Array) -> jax.Array:
    """Returns 1 - decay^count, what an average of `count` numbers that began at 0 is too small by (Adam, algorithm 1).

    By expm1, with the logarithm in float64: right to 1e-6 of itself.
    """
    return -jnp.expm1(count * math.log(decay)) if decay > 0 else jnp.ones((), jnp.float32)


def scale_by_adam(*, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Returns m / (sqrt(v) + eps) of the corrected moments (Kingma and Ba 2015, algorithm 1; PyTorch's form).

    The state is optax's.
    """
    return _scale(lambda m, v, first, second: (m / first) / (jnp.sqrt(v / second) + eps), b1=b1, b2=b2, eps=eps)


def scale_by_adam_tf(*, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Returns sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps), of moments not corrected: the form of TensorFlow.

    The "epsilon hat" of Kingma and Ba 2015, section 2: against corrected moments it is eps / sqrt(1 - b2^t), 32 times
    eps in the first step at b2 .999. With the eps of 1e-5 of RLHF, early updates of small gradients are much smaller
    than in PyTorch's form: 16 times at a gradient of 1e-5, 3.8 times at 1e-4. lm-human-preferences was tuned with it
    (detail 17 of docs/ppo.md).
    """
    of = lambda m, v, first, second: jnp.sqrt(second) / first * m / (jnp.sqrt(v) + eps)
    return _scale(of, b1=b1, b2=b2, eps=eps)


def _scale(
    direction: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array], *, b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    """Returns Adam with the direction that is made of both moments and their corrections."""

    def update(grads: Any, state: optax.ScaleByAdamState, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
        first, second = correction(b1, count), correction(b2, count)
        updates = jax.tree.map(lambda m, v: direction(m, v, first, second), mu, nu)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1=b1, b2=b2, eps=eps).init, update)
