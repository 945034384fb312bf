"""Base + adapters -> one tree, by a zip at trace time: no copy, no flag, no second model."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax import tree
from ftjax.adapters import adapter as adapter_types
from ftjax.quant import format as quant_format


class Adapted(struct.PyTreeNode):
    """A frozen weight with an adapter on it; `nn/matmul.py` knows how to multiply by it."""

    frozen: Any  # array or quantised node
    adapter: Any  # an adapter.Adapter
    key: Any = None  # [L] dropout keys of a stacked weight, [] of a single one; None: no dropout


class Transposed(struct.PyTreeNode, quant_format.Quantized):
    """A frozen head [D, V] that is the embedding table [V, D], where the two no longer are one weight.

    It counts as a weight in another form, so a product with it keeps the table for the backward pass, and no copy.
    """

    table: Any  # [V, D], array or quantised node

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the head."""
        return (self.table.shape[1], self.table.shape[0])

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns the dense head."""
        dense = self.table.dequantize(dtype) if quant_format.is_quantized(self.table) else self.table.astype(dtype)
        return jnp.transpose(dense)


def is_weight(leaf: Any) -> bool:
    """True where a walk over the base stops: at None and at a quantised weight, which is a subtree of its own."""
    return leaf is None or quant_format.is_quantized(leaf)


def weight_at(base: Any, path: str, weight: Any) -> Any:
    """Returns the weight that an adapter at `path` changes: the base's, or the embedding for a head that is tied."""
    return Transposed(base.embed_tokens) if weight is None and path == "lm_head" else weight


def attach(base: Any, adapters: Any, key: jax.Array | None = None) -> Any:
    """Returns the base with every adapter on its weight; adapters have the base's structure with None elsewhere.

    A leaf of `adapters` that is itself an array replaces the base's leaf: so full fine-tuning is the same call.
    `key` turns dropout on: each weight, and each layer of a stacked weight, draws its own mask. A bias is what the
    adapter of its weight makes of it. Where the embedding is the head as well, the head is left as it was by an
    adapter on the embedding that is not `tied`, and an adapter at `lm_head` changes the head alone.
    """
    if adapters is None:
        return base
    nodes = tree.paths(adapters, adapter_types.is_adapter)

    def join(path: tuple[Any, ...], weight: Any, adapter: Any) -> Any:
        name = tree.name(path)
        if adapter is None:
            of_weight = nodes.get(f"{name.removesuffix('_bias')}_proj") if name.endswith("_bias") else None
            changes = weight is not None and adapter_types.is_adapter(of_weight)
            return of_weight.bias(weight) if changes else weight  # type: ignore[union-attr]
        if isinstance(adapter, jax.Array | jax.ShapeDtypeStruct):
            return adapter
        weight = weight_at(base, name, weight)
        own = None
        if key is not None and adapter.dropout > 0:
            own = tree.fold(key, name)
            own = jax.random.split(own, weight.shape[0]) if len(weight.shape) > 2 else own
        return Adapted(frozen=weight, adapter=adapter.stacked(tuple(weight.shape[:-2])), key=own)

    joined = jax.tree_util.tree_map_with_path(join, base, adapters, is_leaf=is_weight)
    if getattr(base, "lm_head", base) is None and joined.lm_head is None:
        table = joined.embed_tokens
        if isinstance(table, Adapted) and not table.adapter.tied:
            joined = joined.replace(lm_head=Transposed(base.embed_tokens))
    return joined
