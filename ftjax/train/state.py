"""All that changes in training, and nothing that does not: a checkpoint is this tree."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from ftjax import mesh as meshes


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


def shardings(mesh: jax.sharding.Mesh | None, state: TrainState, letters: Any, *, offload: str) -> TrainState | None:
    """Returns where each array of a state (or of its shapes) lies; None: on the one device there is.

    `letters` is `models.params.axes`. With `offload` "host" the optimizer's state is in the host's memory; else "none".
    """
    if mesh is None and offload == "none":
        return None
    laid = meshes.one_device(state) if mesh is None else meshes.trainable_shardings(mesh, state, letters)
    return laid if offload == "none" else laid.replace(opt_state=meshes.in_host_memory(laid.opt_state, state.opt_state))
