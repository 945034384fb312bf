"""Several adapters over one base in one forward pass: row i of the batch goes through adapter k(i).

    stacked = many.stack(base, [french, None, polite])          # None: the base as it is
    params = attach.attach(base, many.select(stacked, [2, 0, 0, 1]))
    decoder.logits(params, tokens, config)                      # tokens [4, T]; generate.generate as well

The base is the one copy that it always is. A weight costs the gather of its rows' factors, [B, in, R], so this is for
evaluation and serving; the row numbers are data, and other numbers run the same program.
"""

from collections.abc import Sequence
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax import tree
from ftjax.adapters import adapter, attach, lora
from ftjax.errors import UserError


class Many(struct.PyTreeNode, adapter.Adapter):
    """K adapters of one weight, and which of them each row of the batch takes. No dropout: this is for evaluation."""

    each: Any  # one node whose leaves are [L, K, ...], or [K, ...] on a weight without layers
    row: Any = None  # int32 [L, B] or [B]: the same numbers for each layer, so that a scan finds its own
    layers: int = struct.field(pytree_node=False, default=0)  # 0: a weight without layers
    tied: bool = struct.field(pytree_node=False, default=False)  # see Adapter

    def forward(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns what each row's own adapter makes of x [B, T, in] and y = enter(x) W."""
        return jax.vmap(lambda one, x, y: one.forward(x, y, frozen, key))(self._own(x), x, y)

    def enter(self, x: jax.Array) -> jax.Array:
        """Returns what each row's own adapter lets into the weight."""
        return jax.vmap(lambda one, x: one.enter(x))(self._own(x), x)

    def rows(self, y: jax.Array, tokens: jax.Array, frozen: Any) -> jax.Array:
        """Returns the embeddings [B, T, D] as each row's own adapter makes them."""
        return jax.vmap(lambda one, y, tokens: one.rows(y, tokens, frozen))(self._own(y), y, tokens)

    def head(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns the logits [B, T, V] as each row's own adapter makes them."""
        return jax.vmap(lambda one, x, y: one.head(x, y, frozen, key))(self._own(x), x, y)

    def bias(self, bias: jax.Array) -> jax.Array:
        """Returns the bias; ValueError for adapters that scale it, because the rows of a batch share it."""
        if type(self.each).bias is not adapter.Adapter.bias:
            raise ValueError(
                f"{type(self.each).__name__} scales biases, which all rows share; serve one adapter a batch"
            )
        return bias

    def merge(self, dense: jax.Array) -> jax.Array:
        """Raises ValueError: several adapters have no one weight."""
        del dense
        raise ValueError("several adapters over one weight cannot be merged into it; merge one of them")

    def _own(self, x: jax.Array) -> Any:
        """Returns the adapter of each row of x, [B, ...]."""
        if self.row is None or x.ndim < 3 or x.shape[0] != self.row.shape[0]:
            rows = None if self.row is None else self.row.shape[0]
            raise ValueError(f"x is {x.shape}, and the adapters are selected for {rows} rows; x must be [rows, T, in]")
        return jax.tree.map(lambda leaf: leaf[self.row], self.each)


def stack(base: Any, adapters: Sequence[Any]) -> Any:
    """Returns the adapters in one tree shaped like the base, where entry k of `select` means `adapters[k]`.

    LoRAs may differ in rank, scale and targets: what lacks is zero. Adapters of other types are stacked where all of
    them have the same nodes on the same weights; else it is a UserError that names the weight.
    """
    if not adapters:
        raise UserError("there are no adapters to stack; give at least one")
    found = [{} if one is None else tree.paths(one, adapter.is_adapter) for one in adapters]
    weights = tree.paths(base, attach.is_weight)
    for number, leaves in enumerate(found):
        unknown = sorted(leaves.keys() - weights.keys())
        if unknown:
            raise UserError(f"adapter {number} is for another base: this one has no {', '.join(unknown[:3])}")

    def join(path: tuple[Any, ...], weight: Any) -> Any:
        name = tree.name(path)
        nodes = [leaves.get(name) for leaves in found]
        if all(node is None for node in nodes):
            return None
        return _join(name, nodes, tuple(attach.weight_at(base, name, weight).shape))

    return jax.tree_util.tree_map_with_path(join, base, is_leaf=attach.is_weight)


def _join(name: str, nodes: Sequence[Any], shape: tuple[int, ...]) -> Many:
    if len(shape) > 3:
        raise UserError(f"{name}: experts see the tokens of all rows together; serve one adapter a batch")
    if not all(node is None or adapter.is_adapter(node) for node in nodes):
        raise UserError(f"{name} is trained whole in one of the adapters, so its base is another; serve it alone")
    alike: list[Any] = [None if node is None else node.exported().stacked(shape[:-2]) for node in nodes]
    if all(node is None or isinstance(node, lora.LoRA) for node in alike):
        alike = _aligned(alike, shape, name)
    if any(node is None for node in alike):
        raise UserError(f"{name}: only LoRA may be on it in one adapter and absent in another")
    if len({jax.tree.structure(node) for node in alike}) > 1:
        kinds = ", ".join(sorted({type(node).__name__ for node in alike}))
        raise UserError(f"{name}: adapters of different make ({kinds}) cannot share a forward pass")
    layers = shape[0] if len(shape) > 2 else 0
    each = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1 if layers else 0), *alike)
    return Many(each=each, layers=layers, tied=bool(alike[0].tied))


def _aligned(nodes: Sequence[lora.LoRA | None], shape: tuple[int, ...], path: str) -> list[Any]:
    """Returns LoRAs of one rank and of scale 1: narrow ones get columns of zeros, absent ones are zero."""
    there = [node for node in nodes if node is not None]
    if len({node.tied for node in there}) > 1:
        raise UserError(f"{path}: one adapter is on the head as well, and another is not; serve them apart")
    rank = max(node.a.shape[-1] for node in there)
    *batch, rows, columns = shape
    made = []
    for node in nodes:
        a, b = jnp.zeros((*batch, rows, 0), jnp.float32), jnp.zeros((*batch, 0, columns), jnp.float32)
        if node is not None:
            a, b = node.a, node.b * jnp.float32(node.scale)
        if (*a.shape[:-1], b.shape[-1]) != shape:
            raise UserError(f"{path} is {shape} in this base, and the adapter is for {(*a.shape[:-1], b.shape[-1])}")
        pad = rank - a.shape[-1]
        still = ((0, 0),) * (a.ndim - 2)
        a, b = jnp.pad(a, (*still, (0, 0), (0, pad))), jnp.pad(b, (*still, (0, pad), (0, 0)))
        made.append(lora.LoRA(a=a, b=b, scale=1.0, dropout=0.0, tied=there[0].tied))
    return made


def select(stacked: Any, rows: Any) -> Any:
    """Returns the stacked adapters with the number of the adapter of each row, [B]; to be attached to the base.

    Under jit `rows` may be traced, and then a number that is none of the adapters' goes unseen; else it is an error.
    """
    row_B = jnp.asarray(rows, jnp.int32)

    def choose(node: Many) -> Many:
        count = jax.tree.leaves(node.each)[0].shape[1 if node.layers else 0]
        if not isinstance(row_B, jax.core.Tracer) and bool(jnp.any((row_B < 0) | (row_B >= count))):
            raise UserError(f"rows {row_B.tolist()} name adapters that are not there; numbers go from 0 to {count - 1}")
        return node.replace(row=jnp.broadcast_to(row_B, (node.layers, *row_B.shape)) if node.layers else row_B)

    return jax.tree.map(choose, stacked, is_leaf=lambda leaf: isinstance(leaf, Many))
