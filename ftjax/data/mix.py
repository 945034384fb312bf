"""One data file of several, in given shares."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftjax import errors
from ftjax.data import rows


def mix(parts: Sequence[rows.DataFile], weights: Sequence[float], *, count: int | None, seed: int) -> list[Any]:
    """Returns rows in a seeded order, of each file its share of `count`, no row twice.

    Without `count`, as many rows as the shares allow. Files of preferences and files of answers do not mix.
    """
    if len(weights) != len(parts) or not all(0 < weight < float("inf") for weight in weights):
        raise errors.UserError(f"{len(parts)} files and weights {list(weights)}: give one above 0 for each file")
    if len({part.of_preferences for part in parts}) > 1:
        named = ", ".join(f"{part.path} ({'preferences' if part.of_preferences else 'answers'})" for part in parts)
        raise errors.UserError(
            f"{named}: preferences and answers to learn from are trained apart; mix files of one kind"
        )
    for part in parts:
        for row in part.rows:
            if row.refusal is not None:
                raise errors.UserError(f"{row.refusal} (data.py check finds all such rows)")
    share = np.array(weights, float) / sum(weights)
    sizes = np.array([len(part.rows) for part in parts])
    most = int(np.floor((sizes / share).min() + 1e-9))
    wanted = most if count is None else count
    if wanted > most or wanted < 1:
        short = parts[int(np.argmin(sizes / share))]
        raise errors.UserError(
            f"{wanted} rows: {short.path} has {len(short.rows)} rows, which is enough for 1 to {most} in these shares; "
            "ask for fewer, or change the weights"
        )
    taken = _sizes(share, wanted)
    draw = np.random.default_rng(seed)
    chosen = [
        part.rows[n].value
        for part, own in zip(parts, taken, strict=True)
        for n in draw.choice(len(part.rows), own, replace=False)
    ]
    return [chosen[n] for n in draw.permutation(len(chosen))]


def _sizes(share: np.ndarray, count: int) -> list[int]:
    """Returns whole numbers of that sum, closest to the shares (largest remainder)."""
    whole = np.floor(share * count).astype(int)
    for n in np.argsort(-(share * count - whole), kind="stable")[: count - whole.sum()]:
        whole[n] += 1
    return whole.tolist()
