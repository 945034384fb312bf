"""A data file in parts, none of which has a row that is nearly one of another part."""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import rows, similarity, topics


class Parts(NamedTuple):
    """The rows of each part by its name, in their order; how many groups there were, and the rows of the largest."""

    values: dict[str, list[Any]]
    groups: int
    largest: int


def parse_shares(text: str) -> dict[str, float]:
    """Returns {"train": 0.9, "test": 0.1} of "train=0.9,test=0.1"; shares are divided by their sum."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        if name.strip() in found:
            raise errors.UserError(f"parts {text!r}: {name.strip()!r} is there twice; give each part its own name")
        try:
            found[name.strip()] = float(share)
        except ValueError:
            raise errors.UserError(f"parts {text!r} must be NAME=SHARE,...; for example train=0.9,test=0.1") from None
    bad = [name for name in found if not name.replace("-", "").replace("_", "").isalnum()]
    if bad or len(found) < 2 or not all(0 < share < float("inf") for share in found.values()):
        raise errors.UserError(f"parts {text!r}: give two names or more, of letters and digits, with shares above 0")
    return dict(zip(found, shares(list(found.values())), strict=True))


def shares(weights: Sequence[float]) -> list[float]:
    """Returns weights above 0 by their sum, which may be more than a float holds."""
    exponent = math.frexp(max(weights))[1]
    scaled = [math.ldexp(one, -exponent) for one in weights]  # exact: the shares are those of the weights as they are
    return [one / sum(scaled) for one in scaled]


def split(
    data: rows.DataFile, shares: Mapping[str, float], *, seed: int, by: str | None, clusters: int | None
) -> Parts:
    """Returns the parts. Rows stay together that are nearly equal, that ask the same, or that have one value of `by`.

    With `clusters` so do rows that are about the same, of so many clusters; the first row of a group decides for all.
    Groups are dealt in a seeded order, each to the part that lacks most of its share; so with few large groups the
    sizes are not the shares.
    """
    for row in data.rows:
        if row.refusal is not None:
            raise errors.UserError(f"{row.refusal} (data.py check finds all such rows; mend them before the split)")
    group = groups(data, by=by)
    if clusters is not None:
        group = _of_clusters(data, group, clusters)
    members: dict[int, list[int]] = {}
    for n, own in enumerate(group):
        members.setdefault(int(own), []).append(n)
    if len(members) < len(shares):
        raise errors.UserError(
            f"{data.path}: {len(data.rows)} rows are {len(members)} groups of like rows, fewer than {len(shares)} parts"
        )
    order = np.random.default_rng(seed).permutation(len(members))
    alike = list(members.values())
    dealt = [alike[n] for n in order]
    dealt.sort(key=len, reverse=True)  # stable: the large ones first, or they would overfill a part at the end
    filled: dict[str, list[int]] = {name: [] for name in shares}
    for position, own in enumerate(dealt):
        empty = [name for name in shares if not filled[name]]
        choice = empty if len(dealt) - position <= len(empty) else list(shares)  # no part stays empty
        filled[max(choice, key=lambda name: shares[name] * len(data.rows) - len(filled[name]))].extend(own)
    values = {name: [data.rows[n].value for n in sorted(chosen)] for name, chosen in filled.items()}
    return Parts(values, len(members), max(map(len, members.values())))


def groups(data: rows.DataFile, *, by: str | None) -> np.ndarray:
    """Returns for each row the first row of its group."""
    parent = np.arange(len(data.readable))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = int(parent[n])
        return n

    def join(a: int, b: int) -> None:
        first, second = sorted((root(a), root(b)))
        parent[second] = first

    for n, first in enumerate(similarity.groups(data.texts)):
        join(n, int(first))
    _join_equal([similarity.normal(sample.opening) or None for sample in data.samples], join)
    _join_equal([key.hex() for key in data.keys], join)
    if by is not None:
        values = [row.value.get(by) for row in data.readable]
        if all(value is None for value in values):
            raise errors.UserError(f"{data.path}: no row has a column {by!r} to group by")
        _join_equal([None if value is None else repr(value) for value in values], join)
    return np.array([root(n) for n in range(len(parent))])


def _of_clusters(data: rows.DataFile, group: np.ndarray, count: int) -> np.ndarray:
    """Returns for each row the cluster of the first row of its group; -1 - n where that row n is in none."""
    if count < 2:
        raise errors.UserError(f"--clusters {count} must be at least 2; one cluster cannot be split")
    own = topics.clusters(data.asked, data.vectors, count=count)
    if own is None:
        raise errors.UserError(
            f"{data.path}: {len(data.readable)} rows have no clusters: fewer than {topics.LEAST}, or no words in common"
        )
    return np.where(own[group] < 0, -1 - group, own[group])


def _join_equal(keys: Sequence[str | None], join: Any) -> None:
    first: dict[str, int] = {}
    for n, key in enumerate(keys):
        if key is not None:
            join(first.setdefault(key, n), n)
