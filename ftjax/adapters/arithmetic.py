"""Arithmetic of LoRA trees: sums, concatenated ranks, truncation to a rank, and what two full models differ by.

A tree is shaped like the base, with a `LoRA` where a weight is adapted and None elsewhere. It stands for the deltas
scale * A B, and everything here is about the deltas: whichever factors give the same ones are as good.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import tree
from ftjax.adapters import adapter, attach, lora, vera
from ftjax.errors import UserError
from ftjax.quant import low_rank


def _leaves(adapters: Any) -> dict[str, lora.LoRA]:
    """Returns the LoRAs of a tree by path; an adapter that is none, and no other writing of one, is a UserError."""
    return {path: _as_lora(path, leaf) for path, leaf in tree.paths(adapters, adapter.is_adapter).items()}


def _as_lora(path: str, leaf: Any) -> lora.LoRA:
    """Returns a node as the LoRA that it is exactly: PiSSA and OLoRA (rank 2R), VeRA (its vectors go into A and B)."""
    node = leaf.exported() if adapter.is_adapter(leaf) else leaf
    if isinstance(node, vera.VeRA):
        whole = node.stacked(node.lambda_d.shape[:-1]) if node.a.ndim == 2 else node
        a, b = whole.a * whole.lambda_d[..., None, :], whole.b * whole.lambda_b[..., None, :]
        node = lora.LoRA(a=a, b=b, scale=1.0, dropout=node.dropout)
    if not isinstance(node, lora.LoRA):
        kind = type(leaf).__name__ if adapter.is_adapter(leaf) else "trained whole"
        raise UserError(
            f"{path} is {kind}, and arithmetic is for LoRA: only its deltas are products of two narrow matrices; "
            "export that adapter merged instead"
        )
    return node


def _map(make: Callable[[str, list[lora.LoRA]], lora.LoRA], trees: Sequence[Any]) -> Any:
    """Returns the tree of `make(path, the LoRAs that the trees have there)`, shaped like the trees."""
    by_path = [_leaves(adapters) for adapters in trees]
    made = {
        path: make(path, [leaves[path] for leaves in by_path if path in leaves])
        for path in sorted({path for leaves in by_path for path in leaves})
    }
    # Each tree has None where another has a LoRA, so the outline is what is None or adapter in the first one.
    stop = lambda leaf: leaf is None or adapter.is_adapter(leaf)
    return jax.tree_util.tree_map_with_path(lambda path, _: made.get(tree.name(path)), trees[0], is_leaf=stop)


def scaled(adapters: Any, weight: float) -> Any:
    """Returns the adapters with every delta times `weight`."""
    return _map(lambda _, ones: ones[0].replace(scale=ones[0].scale * weight), [adapters])


def concatenate(trees: Sequence[Any]) -> Any:
    """Returns the sum of the deltas, exactly: [A1 A2] [B1; B2] = A1 B1 + A2 B2, so the rank is the sum of the ranks.

    Weights that only some trees adapt keep their delta. Unequal scales are folded into B. There is no dropout.
    """

    def join(path: str, ones: list[lora.LoRA]) -> lora.LoRA:
        shapes = {(*one.a.shape[:-1], one.b.shape[-1]) for one in ones}
        if len(shapes) > 1:
            raise UserError(f"{path}: the adapters are for weights of {sorted(shapes)}, so for different bases")
        scale = ones[0].scale if len({one.scale for one in ones}) == 1 and ones[0].scale > 0 else 1.0
        fold = lambda one: one.b if one.scale == scale else one.b * jnp.float32(one.scale / scale)
        a = jnp.concatenate([one.a for one in ones], axis=-1)
        return _made(path, ones, a, jnp.concatenate([fold(one) for one in ones], axis=-2), scale)

    return _map(join, trees)


def weighted_sum(trees: Sequence[Any], weights: Sequence[float]) -> Any:
    """Returns sum_k w_k delta_k, exactly, by concatenation of ranks (PEFT's combination "cat"); w_k may be negative."""
    _check(trees, weights)
    return concatenate([scaled(adapters, weight) for adapters, weight in zip(trees, weights, strict=True) if weight])


def linear(trees: Sequence[Any], weights: Sequence[float]) -> Any:
    """Returns PEFT's combination "linear": A and B are summed apart, each times sqrt |w s|, the sign with A.

    The rank stays, but the delta is not the weighted sum: (A1 + A2)(B1 + B2) has cross terms. It suits adapters that
    came from one start. A weight that lacks in one tree gets the others' alone. Unequal ranks are a UserError.
    """
    _check(trees, weights)
    weighted = [scaled(adapters, weight) for adapters, weight in zip(trees, weights, strict=True)]

    def join(path: str, ones: list[lora.LoRA]) -> lora.LoRA:
        if len({(one.a.shape, one.b.shape) for one in ones}) > 1:
            ranks = [one.a.shape[-1] for one in ones]
            raise UserError(f"{path}: a linear combination needs equal ranks, these have {ranks}; use the weighted sum")
        root = [abs(one.scale) ** 0.5 for one in ones]
        sign = [-1.0 if one.scale < 0 else 1.0 for one in ones]
        a = sum(one.a * jnp.float32(r * s) for one, r, s in zip(ones, root, sign, strict=True))
        return _made(path, ones, a, sum(one.b * jnp.float32(r) for one, r in zip(ones, root, strict=True)), 1.0)

    return _map(join, weighted)


def _made(path: str, ones: list[lora.LoRA], a: Any, b: Any, scale: float) -> lora.LoRA:
    """Returns the LoRA that several became."""
    if len({one.tied for one in ones}) > 1:
        raise UserError(f"{path}: one adapter is on the head as well, and another is not; they have no sum")
    return lora.LoRA(a=a, b=b, scale=scale, dropout=0.0, tied=ones[0].tied)


def _check(trees: Sequence[Any], weights: Sequence[float]) -> None:
    if not trees or len(trees) != len(weights):
        raise ValueError(f"{len(trees)} adapters and {len(weights)} weights; there must be one weight for each")
    if not any(weights):
        raise UserError("every weight is 0, so nothing is left of the adapters")


def truncate(adapters: Any, rank: int) -> tuple[Any, dict[str, float]]:
    """Returns the nearest adapters of at most `rank`, and ||delta - nearest|| / ||delta|| of each weight (Frobenius).

    A = Qa Ra and B' = Qb Rb, so the singular values of A B are those of the small Ra Rb' [R, R] (Eckart-Young); no
    [in, out] is formed. The error of a weight is over all of its layers; one of a rank that fits is left alone.
    """
    if rank < 1:
        raise UserError(f"rank {rank} must be at least 1")
    errors: dict[str, float] = {}

    def cut(path: str, ones: list[lora.LoRA]) -> lora.LoRA:
        one = ones[0]
        errors[path] = 0.0
        if one.a.shape[-1] <= rank:
            return one
        # In float64 on the host: float32 lost 2 digits of a column of 300,000 numbers, and factors are small.
        qa, ra = np.linalg.qr(np.asarray(one.a, np.float64))
        qb, rb = np.linalg.qr(np.swapaxes(np.asarray(one.b, np.float64), -1, -2))
        u, s, vt = np.linalg.svd(ra @ np.swapaxes(rb, -1, -2), full_matrices=False)
        errors[path] = _tail(s, rank)
        root = np.sqrt(s[..., :rank])
        a = (qa @ u[..., :rank]) * root[..., None, :]
        b = root[..., :, None] * (vt[..., :rank, :] @ np.swapaxes(qb, -1, -2))
        return one.replace(a=jnp.asarray(a, jnp.float32), b=jnp.asarray(b, jnp.float32))

    return _map(cut, [adapters]), errors


def _tail(s: Any, rank: int) -> float:
    """Returns the share of the norm that is in the singular values [..., R] behind the first `rank`."""
    whole = float(np.linalg.norm(s))
    return float(np.linalg.norm(s[..., rank:])) / whole if whole > 0 else 0.0


def difference(tuned: Any, base: Any, rank: int) -> tuple[Any, dict[str, float]]:
    """Returns the LoRA of `rank` nearest to tuned - base, and the relative error of each leaf that differs.

    The singular value decomposition of each projection, one layer after the other; scale 1. What is no projection
    (embedding, norms, biases) cannot be a LoRA: where it differs its error is 1, all of its change is lost.
    """
    errors: dict[str, float] = {}

    @jax.jit
    def decompose(new: jax.Array, old: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        delta = lambda pair: low_rank.principal(pair[0].astype(jnp.float32) - pair[1].astype(jnp.float32), rank, 1.0)
        flat = lambda x: x.reshape(-1, *x.shape[-2:])
        found = jax.lax.map(delta, (flat(new), flat(old)))
        return jax.tree.map(lambda x: x.reshape(*new.shape[:-2], *x.shape[1:]), found)

    def one(path: tuple[Any, ...], new: Any, old: Any) -> lora.LoRA | None:
        name = tree.name(path)
        if new is None and old is None:
            return None
        if new is None or old is None or new.shape != old.shape:
            shown = [None if leaf is None else tuple(leaf.shape) for leaf in (new, old)]
            raise UserError(f"{name} is {shown[0]} in one model and {shown[1]} in the other; they must be of one shape")
        if bool(jnp.array_equal(new, old)):
            return None
        if name == "embed_tokens" or new.ndim < (3 if name.startswith("blocks.") else 2):
            errors[name] = 1.0
            return None
        if not 1 <= rank <= min(new.shape[-2:]):
            raise UserError(f"rank {rank} must be between 1 and the smaller side of {name} {tuple(new.shape[-2:])}")
        a, b, s = decompose(new, old)
        errors[name] = _tail(s, rank)
        return lora.LoRA(a=a, b=b, scale=1.0, dropout=0.0)

    made = jax.tree_util.tree_map_with_path(one, tuned, base, is_leaf=attach.is_weight)
    return made, errors


def total_error(adapters: Any, errors: dict[str, float]) -> float:
    """Returns the relative error of all weights together, from what `truncate` kept and the errors that it told.

    A kept delta of norm k with relative error e comes from one of norm k / sqrt(1 - e^2).
    """
    kept = {path: float(_norm(leaf)) ** 2 for path, leaf in _leaves(adapters).items()}
    whole = {path: kept[path] / max(1e-30, 1 - errors.get(path, 0.0) ** 2) for path in kept}
    lost = sum(whole[path] * errors.get(path, 0.0) ** 2 for path in kept)
    return (lost / sum(whole.values())) ** 0.5 if any(whole.values()) else 0.0


def _norm(leaf: lora.LoRA) -> jax.Array:
    """Returns the Frobenius norm of a delta from its factors: ||A B||^2 = tr((A'A)(B B')) over all layers."""
    gram_a = jnp.swapaxes(leaf.a, -1, -2) @ leaf.a
    gram_b = leaf.b @ jnp.swapaxes(leaf.b, -1, -2)
    return abs(leaf.scale) * jnp.sqrt(jnp.sum(gram_a * gram_b))
