"""Leaves of a tree by path: name them, choose them by pattern, count them, weigh them."""

from collections.abc import Callable, Iterable
import re
from typing import Any
import zlib

import jax
import numpy as np


def name(path: tuple[Any, ...]) -> str:
    """Returns a dotted path such as `blocks.q_proj` for a key path of jax."""
    parts = (getattr(p, "name", None) or getattr(p, "key", None) or getattr(p, "idx", None) for p in path)
    return ".".join(str(0 if part is None else part) for part in parts)


def paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """Returns the leaves of a tree by dotted path."""
    return {name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]}


def matches(path: str, targets: str | Iterable[str]) -> bool:
    """True where PEFT would say so: a string is a regex for the whole path, a list holds names or ends of paths."""
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return any(path == target or path.endswith("." + target) for target in targets)


def first_match(path: str, patterns: dict[str, Any], default: Any) -> Any:
    """Returns the value of the first pattern that fits the end of the path (as PEFT's rank_pattern), or the default."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", path):
            return value
    return default


def fold(key: jax.Array, path: str) -> jax.Array:
    """Returns a key for this path alone, so that adding a leaf does not reshuffle the others."""
    return jax.random.fold_in(key, zlib.crc32(path.encode()) & 0x7FFFFFFF)


def stands_for_weight(leaf: Any) -> bool:
    """True for a quantised weight, which is a subtree and counts and lies on a mesh as one leaf."""
    return hasattr(leaf, "dequantize")


def count(tree: Any) -> int:
    """Returns the number of scalars in a tree of arrays or shapes; a quantised weight counts as what it stands for."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree, is_leaf=stands_for_weight))


def nbytes(tree: Any) -> int:
    """Returns the bytes that the arrays (or shapes) of a tree take."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
