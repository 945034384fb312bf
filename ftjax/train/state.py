"""All that changes in training, and nothing that does not: a checkpoint is this tree."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from ftjax import mesh as meshes
from ftjax.algorithms.algorithm import Algorithm


class TrainState(struct.PyTreeNode):
    """Donated to every step. The frozen base is not in it."""

    step: jax.Array  # int32 []: updates done
    trainable: Any
    opt_state: Any
    key: jax.Array  # the run's key, never changed: a step folds its number into it
    extra: Any = None  # of the algorithm: what changes, but not by gradients (algorithms.algorithm.Extra)


def init(
    trainable: Any, optimizer: optax.GradientTransformation, key: jax.Array, extra: Any = None
) -> TrainState:  # fmt: skip
    """Returns the state before the first step."""
    step = jnp.zeros((), jnp.int32)
    return TrainState(step=step, trainable=trainable, opt_state=optimizer.init(trainable), key=key, extra=extra)


def begin(algorithm: Algorithm, base: Any, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """Returns the state before the first step of an algorithm, whose trainables and extras are made from the base."""
    trainable = algorithm.init(jax.random.fold_in(key, 1), base)
    # Copied: an array that is in the state twice cannot be donated.
    extra = jax.tree.map(jnp.copy, algorithm.extra.init(trainable, base)) if algorithm.extra else None
    return init(trainable, optimizer, key, extra)


def shardings(mesh: jax.sharding.Mesh | None, state: TrainState, letters: Any, *, offload: str) -> TrainState | None:
    """Returns where each array of a state (or of its shapes) lies; None: on the one device there is.

    `letters` is `models.params.axes`. With `offload` "host" the optimizer's state is in the host's memory; else "none".
    """
    if mesh is None and offload == "none":
        return None
    laid = meshes.one_device(state) if mesh is None else meshes.trainable_shardings(mesh, state, letters)
    return laid if offload == "none" else laid.replace(opt_state=meshes.in_host_memory(laid.opt_state, state.opt_state))
