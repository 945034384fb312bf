"""Which weights train: targets -> a tree of fresh adapters, shaped like the base with None where nothing is adapted."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from ftjax import tree
from ftjax.adapters import attach
from ftjax.errors import UserError

ALL_LINEAR = r"blocks\.\w+_proj"


def targeted(base: Any, targets: str | tuple[str, ...]) -> list[str]:
    """Returns the paths of the matrices that `targets` chooses; no match, or a match on a vector, is an error.

    `targets` is a regex for the whole path ("blocks\\.(q|v)_proj"), a tuple of names as PEFT takes them
    ("q_proj", "v_proj"), or "all-linear" (every projection of the blocks, not the head).
    """
    matrices = {p: w for p, w in tree.paths(base, attach.is_weight).items() if w is not None and _is_matrix(p, w)}
    wanted = ALL_LINEAR if targets == "all-linear" else targets
    found = [path for path in matrices if tree.matches(path, wanted)]
    if not isinstance(wanted, str):
        empty = [t for t in wanted if not any(tree.matches(path, (t,)) for path in matrices)]
        if empty and found:
            raise UserError(
                f"adapter targets {empty} match no weight; those that can be adapted: {', '.join(matrices)}"
            )
    if not found:
        shown = targets if isinstance(targets, str) else list(targets)
        raise UserError(f"adapter targets {shown!r} match no weight; those that can be adapted: {', '.join(matrices)}")
    return found


def _is_matrix(path: str, weight: Any) -> bool:
    """True for a projection [in, out], stacked over layers or not; an embedding is a table, which LoRA does not fit."""
    return len(weight.shape) == (3 if path.startswith("blocks.") else 2) and path != "embed_tokens"


def init(
    key: jax.Array,
    base: Any,
    *,
    make: Callable[..., Any],
    targets: str | tuple[str, ...],
    rank: int,
    alpha: float,
    rank_pattern: Mapping[str, int],
    alpha_pattern: Mapping[str, float],
) -> Any:
    """Returns an adapter for every targeted weight; `make(key, weight, rank=, alpha=)` builds one (`lora.init_one`).

    Patterns give single weights another rank or alpha: the first key that matches the end of the path wins, as in
    PEFT. Keys depend on the path alone, so adding a target does not change the others.
    """
    chosen = set(targeted(base, targets))
    for pattern in (*rank_pattern, *alpha_pattern):
        if not any(tree.first_match(path, {pattern: True}, False) for path in chosen):
            raise UserError(f"adapter pattern {pattern!r} matches none of the targets {', '.join(sorted(chosen))}")

    def pick(path: tuple[Any, ...], weight: Any) -> Any:
        name = tree.name(path)
        if name not in chosen:
            return None
        own_rank = tree.first_match(name, dict(rank_pattern), rank)
        own_alpha = tree.first_match(name, dict(alpha_pattern), alpha)
        if own_rank > min(weight.shape[-2:]):
            raise UserError(f"adapter rank {own_rank} is above the smaller side of {name} {tuple(weight.shape[-2:])}")
        return make(tree.fold(key, name), weight, rank=own_rank, alpha=own_alpha)

    return jax.tree_util.tree_map_with_path(pick, base, is_leaf=attach.is_weight)
