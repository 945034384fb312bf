"""Rows that are there twice."""

from collections.abc import Iterator

from ftjax.data import rows

SEVERITY = "warning"
WHY = "A row that is there n times weighs n times, and one in training and held-out rows spoils the measurement."
FIX = "Keep one of them; --fix does."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows that are equal to an earlier one in all that training takes."""
    for n, first in repeated(data):
        yield rows.Found(data.readable[n].line, f"the same row as line {data.readable[first].line}")


def removes(data: rows.DataFile) -> Iterator[int]:
    """Yields the lines of the later ones."""
    for n, _ in repeated(data):
        yield data.readable[n].line


def repeated(data: rows.DataFile) -> Iterator[tuple[int, int]]:
    """Yields the index of each row that is there before, and of the first one."""
    seen: dict[bytes, int] = {}
    for n, key in enumerate(data.keys):
        if seen.setdefault(key, n) != n:
            yield n, seen[key]
