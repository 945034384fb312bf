"""Dense tensors and trees -> quantised ones, a tensor at a time."""

import functools
import importlib
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import lookup, quant, tree
from ftjax.errors import UserError

_ROOMS = ("format", "convert")


def formats() -> list[str]:
    """Returns the names of the formats: those of their files, with dashes."""
    return [name.replace("_", "-") for name in lookup.modules(quant.__name__) if name not in _ROOMS]


def module(name: str) -> ModuleType:
    """Returns the file of a format; an unknown name is a UserError that suggests the nearest."""
    if name not in formats():
        raise UserError(f"quantisation format {name!r} is unknown.{lookup.suggestion(name, formats())}")
    return importlib.import_module(f"{quant.__name__}.{name.replace('-', '_')}")


def group_of(name: str, group: int) -> int:
    """Returns the group size to use: the format's own where `group` is 0."""
    return group or module(name).GROUP


def chosen(shapes: dict[str, tuple[int, ...]], leaves: str) -> list[str]:
    """Returns the paths of the weights that the regex `leaves` quantises; no match is a UserError that lists them.

    Only matrices can be quantised. An embedding is looked up by row, and its rows are not the groups' axis: refused.
    """
    matrices = [path for path, shape in shapes.items() if len(shape) >= (3 if path.startswith("blocks.") else 2)]
    found = [path for path in matrices if tree.matches(path, leaves)]
    if not found:
        raise UserError(f"quant leaves {leaves!r} match no weight; there are {', '.join(matrices)}")
    if "embed_tokens" in found:
        raise UserError(f"quant leaves {leaves!r} match embed_tokens, which stays dense; narrow the regex")
    return found


def check(name: str, shapes: dict[str, tuple[int, ...]], leaves: str, group: int) -> list[str]:
    """Returns the paths to quantise, once every one of them is known to split into groups; reads no weight."""
    found = chosen(shapes, leaves)
    size = group_of(name, group)
    made = functools.partial(module(name).quantize, group=size)
    for path in found:
        try:
            jax.eval_shape(made, jax.ShapeDtypeStruct(shapes[path], jnp.float32))
        except ValueError as error:
            raise UserError(f"{name} cannot hold {path} {shapes[path][-2:]}: {error}") from None
    return found


@functools.lru_cache(maxsize=64)
def _quantizer(name: str, group: int) -> Any:
    """Returns the jitted quantiser of one matrix, which also says whether every number was finite."""
    made = functools.partial(module(name).quantize, group=group)
    return jax.jit(lambda weight: (made(weight), jnp.isfinite(weight).all()))


def matrix(weight: Any, name: str, *, group: int, where: str) -> Any:
    """Returns one matrix [in, out] as a quantised node; NaN or Inf in it is a UserError that says where.

    Jitted for each shape; on a CPU a 4096 x 14336 matrix takes about a tenth of a second a core and, besides the
    float32 matrix, less than half of its size.
    """
    node, finite = _quantizer(name, group_of(name, group))(weight)
    if not bool(finite):
        dense = np.asarray(weight, np.float32)
        index = np.unravel_index(int(np.argmin(np.isfinite(dense))), dense.shape)
        shown = ", ".join(map(str, index))
        raise UserError(f"{where}: [{shown}] is {dense[index]}; a weight that is not finite cannot be quantised")
    return node


def abstract(shape: tuple[int, ...], name: str, *, group: int) -> Any:
    """Returns the node of a weight of this shape, of ShapeDtypeStructs."""
    made = functools.partial(module(name).quantize, group=group_of(name, group))
    return jax.eval_shape(made, jax.ShapeDtypeStruct(shape, jnp.float32))


def abstract_tree(base: Any, name: str, *, leaves: str, group: int) -> Any:
    """Returns a base of shapes with the chosen leaves as abstract nodes; "none" changes nothing."""
    if name == "none":
        return base
    found = set(check(name, {p: w.shape for p, w in tree.paths(base).items()}, leaves, group))
    node = lambda path, w: abstract(w.shape, name, group=group) if tree.name(path) in found else w
    return jax.tree_util.tree_map_with_path(node, base)


def quantize(base: Any, name: str, *, leaves: str, group: int) -> Any:
    """Returns a dense base with the chosen leaves quantised, layer by layer: no second dense copy is made."""
    if name == "none":
        return base
    found = set(check(name, {p: w.shape for p, w in tree.paths(base).items()}, leaves, group))

    def node(path: tuple[Any, ...], weight: Any) -> Any:
        where = tree.name(path)
        if where not in found:
            return weight
        filled = empty(abstract(weight.shape, name, group=group))
        for index in np.ndindex(*weight.shape[:-2]):
            place(filled, index, matrix(weight[index], name, group=group, where=f"{where}{list(index) or ''}"))
        return jax.tree.map(jnp.asarray, filled)

    return jax.tree_util.tree_map_with_path(node, base)


def empty(shapes: Any) -> Any:
    """Returns the node in host memory, not yet filled."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)


def place(filled: Any, index: tuple[int, ...], node: Any) -> None:
    """Writes one matrix's node into a row of a stacked one."""
    for whole, part in zip(jax.tree.leaves(filled), jax.tree.leaves(node), strict=True):
        whole[index] = np.asarray(part)
