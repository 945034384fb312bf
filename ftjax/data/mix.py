"""One data file of several, in given shares."""

from collections.abc import Sequence
import os
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import rows, split, versions

_LEAST = 1e-9  # share of a file


class Mixed(NamedTuple):
    """The rows of a mixture, and how many rows were left out because a file before theirs has them too."""

    values: list[Any]
    shared: int


def refuse_twice(paths: Sequence[str]) -> None:
    """Raises a UserError for the first file that is named twice, also by another path."""
    seen: dict[str, str] = {}
    for path in paths:
        place = path if path.startswith("world:") else os.path.realpath(path)
        if place in seen:
            which = "is named twice" if path == seen[place] else f"is {seen[place]}, which is named already"
            raise errors.UserError(f"{path} {which}; name each file once (--weights says how much of it)")
        seen[place] = path


def mix(parts: Sequence[rows.DataFile], weights: Sequence[float] | None, *, count: int | None, seed: int) -> Mixed:
    """Returns rows in a seeded order, of each file its share of `count`, none twice.

    A row that several files have is the first one's; of what one file has twice, the file decides. Without `weights`
    the files weigh as many rows as they then have, without `count` there are as many rows as the shares allow. Files
    of preferences and files of answers do not mix.
    """
    if weights is not None and (len(weights) != len(parts) or not all(0 < one < float("inf") for one in weights)):
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
    own = _own(parts)
    for part, left in zip(parts, own, strict=True):
        if not left:
            raise errors.UserError(f"{part.path}: the files before it have all of its rows; leave it out")
    sizes = np.array([len(left) for left in own])
    share = np.array(split.shares(sizes.tolist() if weights is None else weights))
    if share.min() < _LEAST:
        raise errors.UserError(
            f"weights {list(weights or sizes.tolist())}: the least is below {_LEAST:g} of all; leave its file out"
        )
    most = int(np.floor((sizes / share).min() + 1e-9))
    wanted = most if count is None else count
    if wanted > most or wanted < 1:
        short = int(np.argmin(sizes / share))
        alone = " that no file before it has" if sizes[short] < len(parts[short].rows) else ""
        raise errors.UserError(
            f"{wanted} rows: {parts[short].path} has {sizes[short]} rows{alone}, which is enough for 1 to {most} in "
            "these shares; ask for fewer, or change the weights"
        )
    taken = _sizes(share, wanted)
    draw = np.random.default_rng(seed)
    chosen = [
        left[n].value
        for left, many in zip(own, taken, strict=True)
        for n in draw.choice(len(left), many, replace=False)
    ]
    shared = sum(len(part.rows) for part in parts) - int(sizes.sum())
    return Mixed([chosen[n] for n in draw.permutation(len(chosen))], shared)


def _own(parts: Sequence[rows.DataFile]) -> list[list[rows.Row]]:
    """Returns the rows of each file that no file before it has."""
    found: list[list[rows.Row]] = []
    before: set[str] = set()
    for part in parts:
        keys = [versions.row_hash(row.value) for row in part.rows] if len(parts) > 1 else [""] * len(part.rows)
        found.append([row for row, key in zip(part.rows, keys, strict=True) if key not in before])
        before.update(keys)
    return found


def _sizes(share: np.ndarray, count: int) -> list[int]:
    """Returns whole numbers of that sum, closest to the shares (largest remainder)."""
    whole = np.floor(share * count).astype(int)
    for n in np.argsort(-(share * count - whole), kind="stable")[: count - whole.sum()]:
        whole[n] += 1
    return whole.tolist()
