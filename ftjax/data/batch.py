"""Examples -> arrays of a fixed shape: padding on the right, several segments in a packed row.

No token id means anything here: what is padding is said by `segments` alone, and weights come from the masks of the
examples, never from `id != pad`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import encode


class Collator(NamedTuple):
    """How rows of one kind become batches: the tokens that a row needs, and `(rows, *, length) -> batch`.

    rows[b] holds what stands in row b of the batch, in order; an empty list is padding. The batch is a NamedTuple of
    arrays whose first axis is the row and whose `length` alone depends on the rows.
    """

    size: Callable[[Any], int]
    collate: Callable[..., Any]


class SFTBatch(NamedTuple):
    """Arrays [B, T]: int32 but for the float32 weights.

    targets[b, t] = tokens[b, t + 1] within a segment, else 0; weights[b, t] = 1 where that target is trained on.
    positions restart in each segment; segments count from 1, and 0 is padding.
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    segments: np.ndarray


def pack_rows(rows: Sequence[Sequence[encode.Example]], *, length: int) -> SFTBatch:
    """Returns the batch whose row b holds the examples rows[b] as segments, in order; an empty list is all padding."""
    made = SFTBatch(*(np.zeros((len(rows), length), kind) for kind in _KINDS))
    for b, examples in enumerate(rows):
        start = 0
        for number, example in enumerate(examples, start=1):
            end = start + len(example.ids)
            if end > length:
                raise errors.UserError(f"{example.where}: its packed row has {end} tokens or more, but holds {length}")
            made.tokens[b, start:end] = example.ids
            made.targets[b, start : end - 1] = example.ids[1:]
            made.weights[b, start : end - 1] = example.mask[1:]
            made.positions[b, start:end] = np.arange(end - start)
            made.segments[b, start:end] = number
            start = end
    return made


def pad_rows(examples: Sequence[encode.Example | None], *, length: int) -> SFTBatch:
    """Returns the batch with one example a row, padded to `length`; None is a row of padding."""
    return pack_rows([[] if example is None else [example] for example in examples], length=length)


def bucket(longest: int, buckets: Sequence[int]) -> int:
    """Returns the smallest bucket that holds a row of `longest` tokens."""
    fitting = [size for size in buckets if size >= longest]
    if not fitting:
        raise errors.UserError(
            f"a row of {longest} tokens fits no bucket of {sorted(buckets)}; add a bucket or lower max_length"
        )
    return min(fitting)


def by_width(lengths: Sequence[int], *, longest: int, rows: int) -> list[tuple[list[int], int]]:
    """Returns batches of at most so many rows as (places, width): texts of like length together, in few shapes.

    Widths are 32, 48, 64, 96, 128, .. and at most `longest`, so that at most a third of a batch of long texts is
    padding, and a program is compiled for each octave of lengths twice.
    """
    of_width: dict[int, list[int]] = {}
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        of_width.setdefault(width_of(lengths[place], longest), []).append(place)
    return [
        (places[first : first + rows], width)
        for width, places in of_width.items()
        for first in range(0, len(places), rows)
    ]


def width_of(length: int, longest: int) -> int:
    """Returns the width of the batch that a text of this length is in."""
    width = _SHORTEST
    while width < length:
        width = width // 2 * 3 if width & (width - 1) == 0 else width // 3 * 4
    return min(width, longest)


def padded_rows(count: int) -> int:
    """Returns the rows of a batch that holds so many: a power of two, for which a program is compiled."""
    return 1 << (count - 1).bit_length()


_SHORTEST = 32  # tokens of the narrowest batch of `by_width`
_KINDS = (np.int32, np.int32, np.float32, np.int32, np.int32)
EXAMPLES = Collator(size=lambda example: len(example.ids), collate=pack_rows)
