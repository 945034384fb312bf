"""Dense tensors and trees -> quantised ones, a tensor at a time."""

from collections.abc import Callable, Mapping
import functools
import importlib
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import lookup, quant, tree
from ftjax.errors import UserError
from ftjax.quant import low_rank, search

_ROOMS = ("budget", "convert", "cost", "format", "low_rank", "search")


class Few(NamedTuple):
    """How a weight is held in few bits, and how it came to be. A folder's config.json has it in these words."""

    format: str
    group: int  # inputs that share a scale; 0: one scale for all of them
    search: bool = False  # groups were clipped where that lowered the error
    rank: int = 0  # of what is kept beside the bits of what they lost (LoftQ); 0: nothing
    iterations: int = 0  # of LoftQ


Plan = Mapping[str, Few]  # by path of the leaf; all others stay dense


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


def chosen(shapes: Mapping[str, tuple[int, ...]], leaves: str, *, embeddings: bool = False) -> list[str]:
    """Returns the paths of the weights that the regex `leaves` quantises; no match is a UserError that lists them.

    Only matrices can be quantised. An embedding is refused unless `embeddings` says that this is meant: its numbers go
    into the stream as they are, and tied to the head it decides every logit.
    """
    matrices = [path for path, shape in shapes.items() if len(shape) >= (3 if path.startswith("blocks.") else 2)]
    found = [path for path in matrices if tree.matches(path, leaves)]
    if not found:
        raise UserError(f"quant leaves {leaves!r} match no weight; there are {', '.join(matrices)}")
    if "embed_tokens" in found and not embeddings:
        raise UserError(
            f"quant leaves {leaves!r} match embed_tokens, which stays dense; narrow the regex (scripts/quantize.py can "
            "be told --embeddings)"
        )
    return found


def plan(
    name: str, shapes: Mapping[str, tuple[int, ...]], leaves: str, group: int, *, embeddings: bool = False
) -> dict[str, Few]:
    """Returns how the chosen weights are held, once each is known to split into groups; "none" chooses nothing."""
    if name == "none":
        return {}
    few = Few(name, group_of(name, group))
    found = dict.fromkeys(chosen(shapes, leaves, embeddings=embeddings), few)
    check(found, shapes)
    return found


def plan_of(base: Any, name: str, *, leaves: str, group: int) -> dict[str, Few]:
    """Returns `plan` for the weights of a base, or of its shapes."""
    return plan(name, {path: w.shape for path, w in tree.paths(base).items()}, leaves, group)


def check(plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a UserError on the first weight that cannot be held as planned; reads no weight."""
    for path, few in plan.items():
        try:
            abstract(shapes[path], few)
        except ValueError as error:
            raise UserError(f"{few.format} cannot hold {path} {shapes[path][-2:]}: {error}") from None
        if few.rank > min(shapes[path][-2:]):
            raise UserError(f"LoftQ: rank {few.rank} is above the smaller side of {path} {shapes[path][-2:]}")


def _maker(few: Few) -> Callable[[jax.Array], Any]:
    """Returns the function from a weight to its node, without what LoftQ adds."""
    made = functools.partial(module(few.format).quantize, group=few.group)
    return lambda w: made(search.clipped(w, quantise=made, group=few.group)) if few.search else made(w)


@functools.lru_cache(maxsize=64)
def _quantizer(few: Few) -> Any:
    """Returns the jitted quantiser of one matrix, which also says whether every number was finite."""
    made = _maker(few)
    if few.rank:
        made = functools.partial(low_rank.decompose, quantise=made, rank=few.rank, iterations=few.iterations)
    return jax.jit(lambda weight: (made(weight), jnp.isfinite(weight).all()))


def matrix(weight: Any, few: Few, *, where: str) -> Any:
    """Returns one matrix [in, out] as a quantised node; NaN or Inf in it is a UserError that says where.

    Jitted for each shape; on a CPU a 4096 x 14336 matrix takes about a tenth of a second a core and, besides the
    float32 matrix, less than half of its size. A search takes 22 times that, LoftQ a singular value decomposition each
    iteration.
    """
    node, finite = _quantizer(few)(weight)
    if not bool(finite):
        dense = np.asarray(weight, np.float32)
        index = np.unravel_index(int(np.argmin(np.isfinite(dense))), dense.shape)
        shown = ", ".join(map(str, index))
        raise UserError(f"{where}: [{shown}] is {dense[index]}; a weight that is not finite cannot be quantised")
    return node


def abstract(shape: tuple[int, ...], few: Few) -> Any:
    """Returns the node of a weight of this shape, of ShapeDtypeStructs."""
    made = functools.partial(module(few.format).quantize, group=few.group)
    node = jax.eval_shape(made, jax.ShapeDtypeStruct(shape, jnp.float32))
    return low_rank.abstract(node, few.rank) if few.rank else node


def abstract_tree(base: Any, plan: Plan) -> Any:
    """Returns a base of shapes with the planned leaves as abstract nodes."""
    node = lambda path, w: abstract(w.shape, plan[tree.name(path)]) if tree.name(path) in plan else w
    return jax.tree_util.tree_map_with_path(node, base)


def quantize(base: Any, name: str, *, leaves: str, group: int) -> Any:
    """Returns a dense base with the chosen leaves quantised, layer by layer: no second dense copy is made."""
    found = plan_of(base, name, leaves=leaves, group=group)
    node = lambda path, w: leaf(w, found[tree.name(path)], tree.name(path)) if tree.name(path) in found else w
    return jax.tree_util.tree_map_with_path(node, base)


def leaf(weight: Any, few: Few, where: str) -> Any:
    """Returns a dense leaf [..., in, out] as a node, quantised matrix by matrix."""
    filled, weight = empty(abstract(weight.shape, few)), np.asarray(weight)
    for index in np.ndindex(*weight.shape[:-2]):
        place(filled, index, matrix(weight[index], few, where=f"{where}{list(index) or ''}"))
    return jax.tree.map(jnp.asarray, filled)


def empty(shapes: Any) -> Any:
    """Returns the node in host memory, not yet filled."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)


def place(filled: Any, index: tuple[int, ...], node: Any) -> None:
    """Writes one matrix's node into a row of a stacked one."""
    for whole, part in zip(jax.tree.leaves(filled), jax.tree.leaves(node), strict=True):
        whole[index] = np.asarray(part)
