"""Adapters of single modules <-> the leaf that holds all layers, and modules of PEFT that are several weights of ours.

The adapter of a single matrix is the type's own node with NumPy arrays and without a layer axis. Where layers differ
(layers_to_transform, a pattern for some layers), the leaf is padded with zeros, which mean "no adapter here" to every
type: they add nothing and get no gradient. `split` cuts them off again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.adapters import dora, ia3, lora, vera
from ftjax.errors import UserError

Index = tuple[int, ...]  # of a matrix in its leaf: () or (layer,)
_LOW_RANK = (lora.LoRA, dora.DoRA)


def arrays(node: Any) -> dict[str, np.ndarray]:
    """Returns the array fields of a node, in float32."""
    names = [field.name for field in dataclasses.fields(node) if field.metadata.get("pytree_node", True)]
    return {name: np.asarray(getattr(node, name), np.float32) for name in names}


def stack(found: Mapping[Index, Any], batch: Index) -> Any:
    """Returns one leaf of all layers, padded with zeros where a layer has a smaller rank or no adapter."""
    nodes = _one_scale(found)
    first = next(iter(nodes.values()))
    whole = {}
    for name in arrays(first):
        if name in first.constants:
            whole[name] = jnp.asarray(getattr(first, name))
            continue
        parts = {index: arrays(node)[name] for index, node in nodes.items()}
        shape = tuple(max(part.shape[axis] for part in parts.values()) for axis in range(arrays(first)[name].ndim))
        out = np.zeros((*batch, *shape), np.float32)
        for index, part in parts.items():
            corner = tuple(slice(0, size) for size in part.shape)
            out[index][corner] = part
        whole[name] = jnp.asarray(out)
    return first.replace(**whole)


def _one_scale(found: Mapping[Index, Any]) -> dict[Index, Any]:
    """Returns the nodes with the scale of most of them; where it was another, it went into B."""
    if not isinstance(next(iter(found.values())), _LOW_RANK):
        return dict(found)
    scale = Counter(node.scale for node in found.values()).most_common(1)[0][0]
    return {index: rescaled(node, scale) for index, node in found.items()}


def rescaled(node: Any, scale: float) -> Any:
    """Returns the same LoRA or DoRA with another scale."""
    return node if node.scale == scale else node.replace(b=node.b * np.float32(node.scale / scale), scale=scale)


def split(leaf: Any) -> dict[Index, Any]:
    """Returns the node of each layer without the zeros that `stack` padded; a layer of zeros has none.

    Only exact zeros count, on the last ranks: training never makes them. All zeros stay as they are.
    """
    whole = arrays(leaf)
    stacked = [name for name in whole if name not in leaf.constants]
    plain_rank = 1 if isinstance(leaf, ia3.IA3 | vera.VeRA) else 2
    batch = whole[stacked[0]].shape[: whole[stacked[0]].ndim - plain_rank]
    pick = lambda index: leaf.replace(**{n: v[index] if n in stacked else v for n, v in whole.items()})
    nodes = {index: pick(index) for index in np.ndindex(*batch)}
    present = {index: _trimmed(node) for index, node in nodes.items() if _present(node)} or nodes
    if isinstance(leaf, ia3.IA3):
        partly = [index for index, node in present.items() if not np.all(node.l)]
        if partly:
            raise UserError(f"an IA3 scale is exactly 0 in layer {partly[0]}; 0 stands for a layer without an adapter")
    return present


def _present(node: Any) -> bool:
    if isinstance(node, dora.DoRA):
        return bool(np.any(node.m))
    return any(np.any(value) for name, value in arrays(node).items() if name not in node.constants)


def _trimmed(node: Any) -> Any:
    if not isinstance(node, _LOW_RANK):
        return node
    used = (node.a != 0).any(axis=0) | (node.b != 0).any(axis=1)
    rank = len(used) - int(np.argmax(used[::-1])) if used.any() else len(used)
    return node.replace(a=node.a[:, :rank], b=node.b[:rank])


def of_outputs(node: Any, start: int, stop: int) -> Any:
    """Returns the adapter of some outputs of a module that is several weights of ours: each gets the same A."""
    if isinstance(node, vera.VeRA):
        raise UserError("VeRA on a fused module (qkv_proj, gate_up_proj) is not implemented; refused, not ignored")
    if isinstance(node, ia3.IA3):
        return node if node.feedforward else node.replace(l=node.l[start:stop])
    rows = {"m": node.m[start:stop]} if isinstance(node, dora.DoRA) else {}
    return node.replace(b=node.b[:, start:stop], **rows)


def joined(nodes: list[Any], widths: Iterable[int], module: str) -> Any:
    """Returns the adapter of a fused module from those of its weights (None: no adapter), in order.

    Equal A's are written once, with B's side by side. Others are concatenated, with B's on the diagonal blocks.
    """
    widths = list(widths)
    known = [node for node in nodes if node is not None]
    first = known[0]
    if isinstance(first, vera.VeRA) or len({type(node) for node in known}) > 1:
        raise UserError(f"{module}: PEFT has one adapter for this module; these have no common form, export merged")
    if isinstance(first, ia3.IA3):
        ones = [np.ones(w, np.float32) if node is None else node.l for node, w in zip(nodes, widths, strict=True)]
        return first.replace(l=np.concatenate(ones))
    if isinstance(first, dora.DoRA) and len(known) < len(nodes):
        raise UserError(f"{module}: DoRA is on a part of it, and PEFT has one magnitude for all; target all parts")
    scale = Counter(node.scale for node in known).most_common(1)[0][0]
    nodes = [None if node is None else rescaled(node, scale) for node in nodes]
    known = [node for node in nodes if node is not None]
    same = all(np.array_equal(node.a, first.a) for node in known)
    rank = first.a.shape[1] if same else sum(node.a.shape[1] for node in known)
    b, row, column = np.zeros((rank, sum(widths)), np.float32), 0, 0
    for node, width in zip(nodes, widths, strict=True):
        if node is not None:
            b[row : row + node.b.shape[0], column : column + width] = node.b
            row += 0 if same else node.b.shape[0]
        column += width
    a = first.a if same else np.concatenate([node.a for node in known], axis=1)
    rows = {"m": np.concatenate([node.m for node in known])} if isinstance(first, dora.DoRA) else {}
    return first.replace(a=a, b=b, scale=scale, **rows)


def on_host(tree: Any) -> Any:
    """Returns a tree with NumPy arrays."""
    return jax.tree.map(np.asarray, tree)
