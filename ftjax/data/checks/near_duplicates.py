"""Rows that are nearly the same."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import duplicate_rows

SEVERITY = "warning"
WHY = "They weigh more than they teach, and straddle the split between training and held-out rows."
FIX = "Keep the better one, or split with `data.py split`, which keeps them on one side."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows that share four in five word triples with an earlier one; equal ones are another rule's."""
    equal = {n for n, _ in duplicate_rows.repeated(data)}
    for one in data.near:
        if one.row not in equal:
            like = data.readable[one.like].line
            yield rows.Found(data.readable[one.row].line, f"nearly line {like} (Jaccard {one.jaccard:.2f})")
