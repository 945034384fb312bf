"""Where arrays live: a mesh of (data, fsdp, tensor), and one table from axis letters to mesh axes.

data: copies of everything, each with its rows of the batch. fsdp: rows of the batch and a slice of every weight,
gathered when used. tensor: heads and MLP features split within a layer. XLA's partitioner (GSPMD) inserts the
communication.
"""

from collections.abc import Iterator, Mapping
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
HOST = "pinned_host"  # jax's name of the host memory that devices can copy from
WEIGHTS: Mapping[str, Any] = {"D": "fsdp", "KGH": "tensor", "KH": "tensor", "F": "tensor", "V": "tensor"}
ACTIVATIONS: Mapping[str, Any] = {"B": BATCH, "KGH": "tensor", "KH": "tensor", "F": "tensor", "K": "tensor"}


# Of the rows that are looked up in an embedding [V, D]: by every device in its own slice of D, for all of fsdp's rows.
LOOKED_UP: Mapping[str, Any] = {"B": "data", "D": "fsdp"}


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


def _specs(letters: tuple[str, ...], leaf: Any, mesh: Any, rules: Mapping[str, Any]) -> Any:
    """Returns a PartitionSpec for every array of a weight: dense, or a node of arrays that have its axes.

    The input axis of a node is split in all its arrays or in none, so that a shard holds whole groups; an axis of
    size 1 (one scale for all inputs) asks for nothing. Along any other axis an array that is shorter than the weight
    stays whole: an outer scale of nf4-dq is for 256 outputs, which no shard need end with.
    """
    arrays, rows = jax.tree.leaves(leaf), len(letters) - 2
    specs = [_spec(letters, array.shape, mesh, rules) for array in arrays]
    grouped = all(spec[rows] or array.shape[rows] == 1 for spec, array in zip(specs, arrays, strict=True))

    def kept(spec: P, array: Any) -> P:
        whole = [not grouped if axis == rows else array.shape[axis] != leaf.shape[axis] for axis in range(len(spec))]
        return P(*(None if stays else name for name, stays in zip(spec, whole, strict=True)))

    specs = [kept(spec, array) for spec, array in zip(specs, arrays, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(leaf), specs)


def leaf_shardings(mesh: Mesh, letters: tuple[str, ...], leaf: Any) -> Any:
    """Returns how a weight lies on the mesh: dense, or a node of arrays that have its axes."""
    specs = _specs(letters, leaf, mesh, WEIGHTS)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, P))


def base_shardings(mesh: Mesh, base: Any, letters: Any) -> Any:
    """Returns the shardings of a base, a tree of its structure; `letters` is `models.params.axes`."""
    named = tree.paths(letters, lambda x: isinstance(x, tuple))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf_shardings(mesh, named[tree.name(path)], leaf),
        base,
        is_leaf=tree.stands_for_weight,
    )


def check_groups(mesh: Mesh, base: Any, letters: Any) -> None:
    """Raises UserError where the mesh would cut through groups of inputs that share a scale; reads no weight.

    `base` may be of shapes. An axis that the mesh does not divide at all stays whole, as that of a dense weight does.
    """
    named = tree.paths(letters, lambda x: isinstance(x, tuple))
    for name, leaf in tree.paths(base, tree.stands_for_weight).items():
        if not tree.stands_for_weight(leaf):
            continue
        rows = leaf.shape[-2]
        axis = WEIGHTS.get(named[name][-2])
        ways = mesh.shape[axis] if axis else 1
        counts = [array.shape[-2] for array in jax.tree.leaves(leaf) if array.shape[-2] > 1]
        if rows % ways == 0 and any(count % ways for count in counts):
            slices, groups = rows // ways, min(counts)
            fits = [g for g in (8, 16, 24, 32, 48, 64, 96, 128, 256) if slices % g == 0]
            raise UserError(
                f"{name}: mesh.{axis} {ways} cuts its {rows:,} inputs every {slices:,}, inside the groups of "
                f"{rows // groups} that share a scale; set mesh.{axis} to a divisor of {groups}"
                + (f" or quant.group to {' or '.join(map(str, fits))}" if fits else "")
            )


def trainable_shardings(mesh: Mesh, trainable: Any, letters: Any) -> Any:
    """Returns the shardings of adapters, moments and whatever mirrors them.

    A leaf belongs to the weight whose path its own path contains: `mu.blocks.q_proj.a` is the A of `blocks.q_proj`
    and lies like the rows of that weight, `.b` like its columns, and so do vectors over one of them; a leaf of the
    weight's own rank lies like the weight. Matrices that layers share have no layer axis. What belongs to no weight
    (counts, keys) is copied to every device, as are the `l` of IA3, which may be over either.
    """
    named = tree.paths(letters, lambda x: isinstance(x, tuple))

    def candidates(parts: list[str]) -> Iterator[tuple[str, ...]]:
        for start in range(len(parts)):
            for stop in range(len(parts), start, -1):
                axes = named.get(".".join(parts[start:stop]))
                if axes is None:
                    continue
                own = _of_adapter(axes, parts[stop] if stop < len(parts) else "")
                yield from (axes,) if own is None else ((*axes[:-2], *own), own)

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        for axes in candidates(tree.name(path).split(".")):
            if len(axes) == len(leaf.shape):
                return weight_sharding(mesh, axes, leaf.shape)
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, trainable)


def _of_adapter(axes: tuple[str, ...], field: str) -> tuple[str, ...] | None:
    """Returns the axes, but for those of layers, of a field of an adapter on a weight [..., in, out]."""
    if len(axes) < 2:
        return None
    rows, columns = axes[-2:]
    fields = {"a": (rows, "R"), "b": ("R", columns), "m": (columns,), "lambda_b": (columns,), "lambda_d": ("R",)}
    return fields.get(field)


def one_device(tree_of: Any) -> Any:
    """Returns the shardings of a tree that lies whole on the first device."""
    return jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), tree_of)


def in_host_memory(shardings: Any, tree_of: Any) -> Any:
    """Returns the shardings with every array in the host's pinned memory, from where devices copy at full speed.

    Single numbers stay on the device. Raises UserError where the backend has no such memory.
    """
    device = jax.local_devices()[0]
    if HOST not in {memory.kind for memory in device.addressable_memories()}:
        raise UserError(
            f"optimizer.offload host: {device.device_kind} has no {HOST} memory; set optimizer.offload none"
        )
    return jax.tree.map(lambda s, x: s.with_memory_kind(HOST) if x.ndim else s, shardings, tree_of)


def put(x: Any, sharding: Any) -> jax.Array:
    """Returns an array of NumPy, which every process has whole, on the devices; each process reads what it holds."""
    if jax.process_count() == 1:
        return jax.device_put(x, sharding)
    return jax.make_array_from_callback(np.shape(x), sharding, lambda index: x[index])


def _rows_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    return NamedSharding(mesh, P(BATCH) if rows % ways == 0 else P())


def place_batch(mesh: Mesh | None, batch: Any) -> Any:
    """Returns a batch of NumPy arrays on the devices, rows over data and fsdp; each process gives its own rows."""
    if mesh is None:
        return jax.tree.map(jax.numpy.asarray, batch)
    if jax.process_count() == 1:
        return place_whole_batch(mesh, batch)
    spread = lambda x: _rows_sharding(mesh, x.shape[0] * jax.process_count())
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(spread(x), x), batch)


def place_whole_batch(mesh: Mesh | None, batch: Any) -> Any:
    """Returns a batch of NumPy arrays on the devices, rows over data and fsdp; every process has all rows."""
    if mesh is None:
        return jax.tree.map(jax.numpy.asarray, batch)
    return jax.tree.map(lambda x: put(x, _rows_sharding(mesh, x.shape[0])), batch)


def constrain(x: jax.Array, letters: str, rules: Mapping[str, Any] = ACTIVATIONS) -> jax.Array:
    """Returns x, laid out as activations with these axis letters ("B T D") are, if a mesh is set; else x as it is."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec = _spec(tuple(letters.split()), x.shape, mesh, rules)
    return jax.lax.with_sharding_constraint(x, spec)


def gathered(weight: Any, letters: tuple[str, ...] | None) -> Any:
    """Returns a weight with what fsdp has cut put together again, and the slices of tensor left as they are.

    A node is gathered as it is stored: in few bits. Without letters, or without a mesh, the weight as it is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if letters is None or mesh.empty or mesh.size == 1:
        return weight
    whole = {letter: axis for letter, axis in WEIGHTS.items() if axis != "fsdp"}
    return jax.tree.map(jax.lax.with_sharding_constraint, weight, _specs(letters, weight, mesh, whole))


def batch_shards(rows: int) -> int:
    """Returns over how many devices the rows of a batch are spread in the mesh that is set; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    ways = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    return ways if rows % ways == 0 else 1
