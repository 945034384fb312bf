"""Several processes of one run, on one host or many: JAX's runtime connects them, and each runs the same program.

All of them make every call that computes, in the same order. What is written, printed or asked of somebody else is the
first one's; `of_first` tells the others. The run folder is on a disk that all of them see.
"""

from collections.abc import Callable, Sequence
import json
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from ftjax.errors import UserError

DETECT = "auto"  # a coordinator that JAX finds by itself: TPU pods, SLURM, Open MPI, Kubernetes


def start(*, coordinator: str, processes: int, process: int) -> None:
    """Joins this process to the others, before anything else asks JAX for a device.

    coordinator: HOST:PORT of the first process, or "auto" where JAX knows the cluster. Raises UserError for numbers
    that do not fit, and where the others cannot be reached.
    """
    if coordinator == DETECT:
        given: dict[str, Any] = {}
    elif ":" not in coordinator:
        raise UserError(f"--coordinator {coordinator!r} is no HOST:PORT; give that of process 0, or {DETECT}")
    elif not 0 <= process < processes:
        raise UserError(f"--process {process} of --processes {processes}: they are numbered 0 to {processes - 1}")
    else:
        given = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--coordinator {coordinator}: {str(error).strip().splitlines()[0]}") from error


def several() -> bool:
    """Returns whether the run has more than one process."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Returns whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def wait(where: str) -> None:
    """Returns when all processes have come to the same place, which has a name of its own."""
    if several():
        multihost_utils.sync_global_devices(where)


def of_first(make: Callable[[], Any]) -> Any:
    """Returns what `make` returns in the first process (JSON-ready values), in all of them; alone, what it returns.

    A UserError of the first process is raised in all of them.
    """
    if not several():
        return make()
    told: dict[str, Any] = {}
    if is_first():
        try:
            told = {"value": make()}
        except UserError as error:
            told = {"error": str(error)}
    told = json.loads(_text_of_first(json.dumps(told)))
    if "error" in told:
        raise UserError(told["error"])
    return told["value"]


def array_of_first(value: Any) -> Any:
    """Returns the first process's array, of the same shape in all of them."""
    return multihost_utils.broadcast_one_to_all(value) if several() else value


def _text_of_first(text: str) -> str:
    data = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    room = np.zeros(size, np.uint8)
    if is_first():
        room[:] = data
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(room), np.uint8)).decode()


def readable(tree: Any) -> Any:
    """Returns a tree of arrays that this process can read: those that lie in part with others are gathered."""

    def gather(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_replicated or x.is_fully_addressable:
            return x
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(gather, tree) if several() else tree


def on_host(tree: Any) -> Any:
    """Returns whole arrays of NumPy, also of what lies in part with other processes."""
    return jax.device_get(readable(tree))


def total(values: Sequence[float], after: Any) -> tuple[Any, Any]:
    """Returns the sums over processes, and `after` itself; where there are several, both once `after` is there.

    What waits for the second waits for the sums too. It must: two programs that wait for nothing of each other run at
    once on a CPU, in any order, and what their processes send gets mixed.
    """
    if not several():
        return np.asarray(values, np.float32), after
    mesh = jax.sharding.get_mesh()
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
    mine = np.zeros((jax.local_device_count(), 1, len(values)), np.float32)
    mine[0] = values
    parts = [jax.device_put(part, device) for part, device in zip(mine, jax.local_devices(), strict=True)]
    return _sum(jax.make_array_from_single_device_arrays((mesh.size, len(values)), rows, parts), after)


@jax.jit
def _sum(x: jax.Array, after: jax.Array) -> tuple[jax.Array, jax.Array]:
    sums = x.sum(axis=0)
    return sums, jnp.where(sums[0] < 0, jnp.nan, after)  # no sum of ours is negative, and XLA cannot know
