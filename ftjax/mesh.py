"""Where arrays live: a mesh of (data, fsdp, tensor), and one table from axis letters to mesh axes.

data: copies of everything, each with its rows of the batch. fsdp: rows of the batch and a slice of every weight,
gathered when used. tensor: heads and MLP features split within a layer. XLA's partitioner (GSPMD) inserts the
communication.
"""

from collections.abc import Mapping
import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ftjax import tree
from ftjax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
WEIGHTS: Mapping[str, Any] = {"D": "fsdp", "KGH": "tensor", "KH": "tensor", "F": "tensor", "V": "tensor"}
ACTIVATIONS: Mapping[str, Any] = {"B": BATCH, "KGH": "tensor", "KH": "tensor", "F": "tensor", "K": "tensor"}


def make(*, data: int, fsdp: int, tensor: int, devices: list[Any] | None = None) -> Mesh:
    """Returns the mesh; one size may be -1 and then takes the devices that the others leave.

    Raises UserError where the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor]
    fixed = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise UserError(f"mesh sizes {dict(zip(AXES, sizes, strict=True))}: each is at least 1, and at most one is -1")
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        shown = " x ".join(f"{name} {size}" for name, size in zip(AXES, sizes, strict=True))
        raise UserError(f"mesh {shown} does not fill {len(devices)} devices; use -1 for one of the axes")
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def _spec(letters: tuple[str, ...], shape: tuple[int, ...], mesh: Any, rules: Mapping[str, Any]) -> P:
    """Returns the PartitionSpec of these axes; an axis that does not divide evenly stays whole."""

    def axis(letter: str, size: int) -> Any:
        names = rules.get(letter)
        ways = math.prod(mesh.shape[n] for n in ((names,) if isinstance(names, str) else names or ()))
        return names if ways > 1 and size % ways == 0 else None

    return P(*(axis(letter, size) for letter, size in zip(letters, shape, strict=True)))


def weight_sharding(mesh: Mesh, letters: tuple[str, ...], shape: tuple[int, ...]) -> NamedSharding:
    """Returns how a weight with these axis letters lies on the mesh."""
    return NamedSharding(mesh, _spec(letters, shape, mesh, WEIGHTS))


def leaf_shardings(mesh: Mesh, letters: tuple[str, ...], leaf: Any) -> Any:
    """Returns how a weight lies on the mesh: dense, or a node of arrays that have its axes.

    All arrays of a node take the axes that every one of them can be split along, so that a shard holds whole groups;
    an axis of size 1 (one scale for all inputs) asks for nothing and stays whole.
    """
    arrays = jax.tree.leaves(leaf)
    specs = [_spec(letters, array.shape, mesh, WEIGHTS) for array in arrays]
    split = [
        all(spec[axis] is not None or array.shape[axis] == 1 for spec, array in zip(specs, arrays, strict=True))
        for axis in range(len(letters))
    ]
    kept = [P(*(name if ok else None for name, ok in zip(spec, split, strict=True))) for spec in specs]
    return jax.tree.unflatten(jax.tree.structure(leaf), [NamedSharding(mesh, spec) for spec in kept])


def base_shardings(mesh: Mesh, base: Any, letters: Any) -> Any:
    """Returns the shardings of a base, a tree of its structure; `letters` is `models.params.axes`."""
    named = tree.paths(letters, lambda x: isinstance(x, tuple))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf_shardings(mesh, named[tree.name(path)], leaf),
        base,
        is_leaf=tree.stands_for_weight,
    )


def trainable_shardings(mesh: Mesh, trainable: Any, letters: Any) -> Any:
    """Returns the shardings of adapters, moments and whatever mirrors them.

    A leaf belongs to the weight whose path its own path contains: `mu.blocks.q_proj.a` is the A of `blocks.q_proj`
    and lies like the rows of that weight, `.b` like its columns; a leaf of the weight's own rank lies like the weight.
    What belongs to no weight (counts, keys) is copied to every device.
    """
    named = tree.paths(letters, lambda x: isinstance(x, tuple))

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        parts = tree.name(path).split(".")
        for start in range(len(parts)):
            for stop in range(len(parts), start, -1):
                axes = named.get(".".join(parts[start:stop]))
                if axes is None:
                    continue
                tail = parts[stop:]
                if tail == ["a"]:
                    axes = (*axes[:-1], "R")
                elif tail == ["b"]:
                    axes = (*axes[:-2], "R", axes[-1])
                if len(axes) == len(leaf.shape):
                    return weight_sharding(mesh, axes, leaf.shape)
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, trainable)


def place_batch(mesh: Mesh | None, batch: Any) -> Any:
    """Returns a batch of NumPy arrays on the devices, rows over data and fsdp; each process gives its own rows."""
    if mesh is None:
        return jax.tree.map(jax.numpy.asarray, batch)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]

    def put(x: np.ndarray) -> jax.Array:
        rows = x.shape[0] * jax.process_count()
        sharding = NamedSharding(mesh, P(BATCH) if rows % ways == 0 else P())
        if jax.process_count() == 1:
            return jax.device_put(x, sharding)
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(put, batch)


def constrain(x: jax.Array, letters: str) -> jax.Array:
    """Returns x, laid out as activations with these axis letters ("B T D") are, if a mesh is set; else x as it is."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec = _spec(tuple(letters.split()), x.shape, mesh, ACTIVATIONS)
    return jax.lax.with_sharding_constraint(x, spec)


def batch_shards(rows: int) -> int:
    """Returns over how many devices the rows of a batch are spread in the mesh that is set; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    ways = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    return ways if rows % ways == 0 else 1


def start_processes(*, coordinator: str, processes: int, process: int) -> None:
    """Joins this process to a multi-host run (jax.distributed); an empty coordinator means a single process."""
    if coordinator:
        jax.distributed.initialize(coordinator_address=coordinator, num_processes=processes, process_id=process)
