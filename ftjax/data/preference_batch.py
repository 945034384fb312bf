"""Candidates -> arrays of a fixed shape: all completions of a prompt in one row, so that a pair is never torn apart.

A completion is a branch, numbered from 1 through the row. In the layout "shared" a prompt without its last token stands
once (branch 0), and each branch begins with a copy of that last token, which predicts the first token of the
completion; so no number changes by sharing. In the layout "repeated" each branch has a copy of the whole prompt and a
segment of its own. A query sees a key of its segment that is not later in the row and whose branch is 0 or its own.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import batch, candidates, pack
from ftjax.data.candidates import Candidates


class PreferenceBatch(NamedTuple):
    """Arrays [B, T] of tokens, [B, C] of completions and [B, P] of pairs; int32 but where a dtype is given.

    What is said of a token at t (`weights`, `beyond`) is said of its target: the token that follows in the branch.
    """

    tokens: np.ndarray
    targets: np.ndarray  # 0 where nothing follows
    weights: np.ndarray  # float32, 1 where the target counts
    positions: np.ndarray  # those of prompt and completion together; branches of one prompt have the same
    segments: np.ndarray  # from 1; 0 is padding
    branches: np.ndarray  # from 1; 0 is what all completions of the segment share, and padding
    beyond: np.ndarray  # float32, 1 where the target is one too many for the other completion of the pair (LD-DPO)
    ends: np.ndarray  # place of the last token of branch c + 1; 0 where there is none
    labels: np.ndarray  # float32; 0 where there is none
    label_weights: np.ndarray  # float32, 1 where there is a label
    mismatched: np.ndarray  # float32, 1 where the completion answers another prompt (KTO's estimate of the KL)
    reference: np.ndarray  # float32, log-probabilities under the reference policy, 0 where they were not computed
    chosen: np.ndarray  # branch number; 0 where there is no pair
    rejected: np.ndarray  # branch number; 0 where there is no pair
    margins: np.ndarray  # float32
    pair_weights: np.ndarray  # float32, 1 / pairs of the prompt; 0 where there is no pair


_FLOATS = {"weights", "beyond", "labels", "label_weights", "mismatched", "reference", "margins", "pair_weights"}
_OF_COMPLETIONS = {"ends", "labels", "label_weights", "mismatched", "reference"}
_OF_PAIRS = {"chosen", "rejected", "margins", "pair_weights"}


def pack_candidates(
    rows: Sequence[Sequence[Candidates]], *, length: int, completions: int, pairs: int, prefix: str
) -> PreferenceBatch:
    """Returns the batch whose row b holds the candidates rows[b], in order; an empty list is all padding.

    `completions` and `pairs` are the places C and P of a row.
    """
    candidates.check_prefix(prefix)
    widths = dict.fromkeys(_OF_COMPLETIONS, completions) | dict.fromkeys(_OF_PAIRS, pairs)
    made = PreferenceBatch(
        *(
            np.zeros((len(rows), widths.get(name, length)), np.float32 if name in _FLOATS else np.int32)
            for name in PreferenceBatch._fields
        )
    )
    for b, members in enumerate(rows):
        row = _Row(PreferenceBatch(*(array[b] for array in made)), prefix)
        for one in members:
            row.add(one)
    return made


def collator(datasets: Sequence[Sequence[Candidates]], *, layout: str, length: int, prefix: str) -> batch.Collator:
    """Returns what makes batches of these data sets for `loader`, with C and P that suffice for every epoch.

    `layout` and `length` (of the longest row) are the loader's. Raises a UserError for candidates that fit no row.
    """
    size = functools.partial(_size, prefix=prefix)
    largest = max((one for data in datasets for one in data), key=size)
    if size(largest) > length:
        raise errors.UserError(
            f"{largest.where}: the prompt ({prefix}) and {_completions(largest)} completions have {size(largest)} "
            f"tokens, but a row of a batch holds {length}; make the row longer, or max_length smaller"
        )
    most = []
    for counts in (_completions, _pairs):
        found = [
            pack.most([counts(one) for one in data], [size(one) for one in data], length=length)
            if layout == "packed"
            else max(map(counts, data))
            for data in datasets
        ]
        most.append(max(found))
    collate = functools.partial(pack_candidates, completions=most[0], pairs=most[1], prefix=prefix)
    return batch.Collator(size=size, collate=collate)


def _size(one: Candidates, *, prefix: str) -> int:
    return one.size(prefix)


def _completions(one: Candidates) -> int:
    return len(one.completions) + len(one.mismatched)


def _pairs(one: Candidates) -> int:
    return len(one.pairs)


class _Row:
    """One row of a batch while it is filled; `arrays` are views of the batch."""

    def __init__(self, arrays: PreferenceBatch, prefix: str) -> None:
        self._a, self._prefix = arrays, prefix
        self._at = self._segment = self._branch = self._pair = 0

    def add(self, one: Candidates) -> None:
        """Puts prompt, completions and pairs behind what is there."""
        a, first, count = self._a, self._branch, _completions(one)
        self._check(one)
        if self._prefix == "shared":
            self._segment += 1
            head = one.prompt[:-1]
            self._put(head, np.zeros(len(head), np.uint8), 0, branch=0)
        for ids, mask in one.branches():
            self._branch += 1
            before = one.prompt
            if self._prefix == "shared":
                before = one.prompt[-1:]
            else:
                self._segment += 1
            start = self._at
            whole = np.concatenate([np.zeros(len(before), np.uint8), mask])
            self._put(np.concatenate([before, ids]), whole, len(one.prompt) - len(before), branch=self._branch)
            a.ends[self._branch - 1] = self._at - 1
            self._mark_beyond(one, self._branch - first, start)
        labels = np.array([*one.labels, *[np.nan] * len(one.mismatched)], np.float32)
        here = slice(first, first + count)
        a.label_weights[here] = np.isfinite(labels)
        a.labels[here] = np.nan_to_num(labels)
        a.mismatched[first + len(one.completions) : first + count] = 1
        if one.reference:
            a.reference[here] = one.reference
        for (better, worse), margin in zip(one.pairs, one.margins, strict=True):
            a.chosen[self._pair], a.rejected[self._pair] = first + 1 + better, first + 1 + worse
            a.margins[self._pair], a.pair_weights[self._pair] = margin, 1 / len(one.pairs)
            self._pair += 1

    def _put(self, ids: np.ndarray, mask: np.ndarray, position: int, *, branch: int) -> None:
        if not len(ids):  # a shared prompt of one token
            return
        a, start, end = self._a, self._at, self._at + len(ids)
        a.tokens[start:end] = ids
        a.targets[start : end - 1] = ids[1:]
        a.weights[start : end - 1] = mask[1:]
        a.positions[start:end] = position + np.arange(len(ids))
        a.segments[start:end] = self._segment
        a.branches[start:end] = branch
        self._at = end

    def _mark_beyond(self, one: Candidates, number: int, start: int) -> None:
        """Marks the targets of completion `number` that count but have no counterpart in the shorter one of the pair.

        They count as in LD-DPO (Liu et al. 2024, section 4): the first of both completions stand against each other.
        """
        if len(one.completions) != 2 or len(one.pairs) != 1 or number > 2:
            return
        shorter = min(int(mask.sum()) for mask in one.masks)
        counted = start + np.flatnonzero(self._a.weights[start : self._at])
        self._a.beyond[counted[shorter:]] = 1

    def _check(self, one: Candidates) -> None:
        needs = {
            "tokens": (self._at + one.size(self._prefix), len(self._a.tokens)),
            "completions": (self._branch + _completions(one), len(self._a.ends)),
            "pairs": (self._pair + len(one.pairs), len(self._a.chosen)),
        }
        for what, (need, have) in needs.items():
            if need > have:
                raise errors.UserError(f"{one.where}: its packed row has {need} {what} or more, but holds {have}")
        if one.reference and len(one.reference) != _completions(one):
            raise ValueError(f"{one.where}: {len(one.reference)} reference values for {_completions(one)} completions")
