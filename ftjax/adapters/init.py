"""Which weights train: targets -> a tree of fresh adapters, shaped like the base with None where nothing is adapted."""

from collections.abc import Callable, Mapping
import inspect
from typing import Any

import jax

from ftjax import tree
from ftjax.adapters import attach
from ftjax.errors import UserError

ALL_LINEAR = r"blocks\.\w+_proj"


def targeted(base: Any, targets: str | tuple[str, ...]) -> list[str]:
    """Returns the paths of the matrices that `targets` chooses; no match, or a match on a vector, is an error.

    `targets` is a regex for the whole path ("blocks\\.(q|v)_proj"), a tuple of names as PEFT takes them
    ("q_proj", "v_proj"), or "all-linear" (every projection of the blocks, not the head). `embed_tokens` and `lm_head`
    can be named too, the head even where it is the embedding.
    """
    matrices = _matrices(base)
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


def _matrices(base: Any) -> dict[str, Any]:
    """Returns every weight [..., in, out] by path; an embedding [V, D] is one, for inputs that choose one row."""
    weights = {p: attach.weight_at(base, p, w) for p, w in tree.paths(base, attach.is_weight).items()}
    if getattr(base, "lm_head", base) is None:
        weights["lm_head"] = attach.weight_at(base, "lm_head", None)
    fits = lambda path, weight: weight is not None and len(weight.shape) >= (3 if path.startswith("blocks.") else 2)
    ordered = sorted(weights, key=lambda path: not path.startswith("blocks."))  # the blocks first, in messages too
    return {path: weights[path] for path in ordered if fits(path, weights[path])}


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
    """Returns an adapter for every targeted weight; `make` builds one (`lora.init_one` with its settings).

    `make(key, weight, ...)` gets those of these that it takes: rank, alpha, path (of the weight) and largest (the
    largest in and out of all targets). Patterns give single weights another rank or alpha: the first key that matches
    the end of the path wins, as in PEFT. Keys depend on the path alone, so adding a target does not change the others.
    """
    matrices = _matrices(base)
    chosen = {path: matrices[path] for path in targeted(base, targets)}
    taken = inspect.signature(make).parameters
    for pattern in (*rank_pattern, *alpha_pattern):
        if not any(tree.first_match(path, {pattern: True}, False) for path in chosen):
            raise UserError(f"adapter pattern {pattern!r} matches none of the targets {', '.join(sorted(chosen))}")
    if rank_pattern and "largest" in taken:
        raise UserError("adapter.rank_pattern: this type shares its matrices between all weights, so has one rank")
    largest = (max(w.shape[-2] for w in chosen.values()), max(w.shape[-1] for w in chosen.values()))

    def pick(path: tuple[Any, ...], _: Any) -> Any:
        name = tree.name(path)
        if name not in chosen:
            return None
        weight = chosen[name]
        own = {
            "rank": tree.first_match(name, dict(rank_pattern), rank),
            "alpha": tree.first_match(name, dict(alpha_pattern), alpha),
            "path": name,
            "largest": largest,
        }
        if "rank" in taken and "largest" not in taken and own["rank"] > min(weight.shape[-2:]):
            raise UserError(
                f"adapter rank {own['rank']} is above the smaller side of {name} {tuple(weight.shape[-2:])}"
            )
        own_key = tree.fold(key, name)
        made = make(own_key, weight, **{word: value for word, value in own.items() if word in taken})
        return made.for_table(own_key) if name == "embed_tokens" else made

    return jax.tree_util.tree_map_with_path(pick, base, is_leaf=attach.is_weight)
