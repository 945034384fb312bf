"""Base + adapters -> one tree, by a zip at trace time: no copy, no flag, no second model."""

from typing import Any

from flax import struct
import jax

from ftjax import tree
from ftjax.quant import format as quant_format


class Adapted(struct.PyTreeNode):
    """A frozen weight with an adapter on it; `nn/matmul.py` knows how to multiply by it."""

    frozen: Any  # array or quantised node
    adapter: Any  # node with forward(x, y, frozen, key) and merge(dense)
    key: Any = None  # [L] dropout keys of a stacked weight, [] of a single one; None: no dropout


def is_weight(leaf: Any) -> bool:
    """True where a walk over the base stops: at None and at a quantised weight, which is a subtree of its own."""
    return leaf is None or quant_format.is_quantized(leaf)


def attach(base: Any, adapters: Any, key: jax.Array | None = None) -> Any:
    """Returns the base with every adapter on its weight; adapters have the base's structure with None elsewhere.

    A leaf of `adapters` that is itself an array replaces the base's leaf: so full fine-tuning is the same call.
    `key` turns dropout on: each weight, and each layer of a stacked weight, draws its own mask.
    """
    if adapters is None:
        return base

    def join(path: tuple[Any, ...], weight: Any, adapter: Any) -> Any:
        if adapter is None:
            return weight
        if isinstance(adapter, jax.Array | jax.ShapeDtypeStruct):
            return adapter
        own = None
        if key is not None and adapter.dropout > 0:
            own = tree.fold(key, tree.name(path))
            own = jax.random.split(own, weight.shape[0]) if len(weight.shape) > 2 else own
        return Adapted(frozen=weight, adapter=adapter, key=own)

    return jax.tree_util.tree_map_with_path(join, base, adapters, is_leaf=is_weight)
