"""All that changes in training, and nothing that does not: a checkpoint is this tree."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax


class TrainState(struct.PyTreeNode):
    """Donated to every step. The frozen base is not in it."""

    step: jax.Array  # int32 []: updates done
    trainable: Any
    opt_state: Any
    key: jax.Array  # the run's key, never changed: a step folds its number into it


def init(trainable: Any, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32), trainable=trainable, opt_state=optimizer.init(trainable), key=key
    )  # fmt: skip
