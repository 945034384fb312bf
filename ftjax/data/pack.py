"""Which rows share a packed row: best-fit-decreasing bin packing (Ding et al. 2024, "Fewer Truncations", section 3)."""

import bisect
from collections.abc import Sequence

import numpy as np

from ftjax import errors


def best_fit(lengths: Sequence[int] | np.ndarray, *, length: int) -> np.ndarray:
    """Returns for each row the number of its bin, int32 [rows]; bins are numbered from 0 and hold `length` tokens.

    Longest rows first, each into the fullest bin that still has room. How many bins there are and which lengths meet in
    them depends only on how often each length occurs, not on the order of rows. 100,000 rows take about 0.1 s.
    """
    sizes = np.asarray(lengths, np.int64)
    if len(sizes) and (sizes.min() < 1 or sizes.max() > length):
        worst = int(sizes.max() if sizes.max() > length else sizes.min())
        raise errors.UserError(
            f"a row of {worst} tokens does not fit a packed row of {length}; set max_length to {length}"
        )
    order = np.argsort(-sizes, kind="stable")
    bins = np.zeros(len(sizes), np.int32)
    open_bins: dict[int, list[int]] = {}  # room left -> bins with exactly that room
    rooms: list[int] = []  # the rooms above that have a bin, ascending
    count = 0
    for row, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        at = bisect.bisect_left(rooms, size)
        if at == len(rooms):
            chosen, room = count, length
            count += 1
        else:
            room = rooms[at]
            chosen = open_bins[room].pop()
            if not open_bins[room]:
                rooms.pop(at)
        bins[row] = chosen
        if left := room - size:
            if not open_bins.setdefault(left, []):
                bisect.insort(rooms, left)
            open_bins[left].append(chosen)
    return bins


def members(bins: np.ndarray) -> list[np.ndarray]:
    """Returns the rows of each bin, in the order of the bins."""
    order = np.argsort(bins, kind="stable")
    return np.split(order, np.cumsum(np.bincount(bins))[:-1]) if len(bins) else []


def most(counts: Sequence[int], lengths: Sequence[int], *, length: int) -> int:
    """Returns how much of `counts` one bin of `best_fit` may hold, whichever rows of equal length are dealt to it."""
    by_length: dict[int, list[int]] = {}
    for count, size in zip(counts, lengths, strict=True):
        by_length.setdefault(size, []).append(count)
    largest = {size: np.cumsum(sorted(found, reverse=True)) for size, found in by_length.items()}
    sizes = np.asarray(lengths, np.int64)
    found = 0
    for rows in members(best_fit(sizes, length=length)):
        alike, times = np.unique(sizes[rows], return_counts=True)
        found = max(found, sum(int(largest[size][n - 1]) for size, n in zip(alike.tolist(), times, strict=True)))
    return found
