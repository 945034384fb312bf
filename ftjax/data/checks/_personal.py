"""What rules on private data share: which texts are looked at, and how a finding is worded without showing it."""

from collections.abc import Callable, Iterable, Iterator

from ftjax.data import rows
from ftjax.data.checks import _text


def found(data: rows.DataFile, what: str, find: Callable[[str], Iterable[str]]) -> Iterator[rows.Found]:
    """Yields rows in which `find` finds something, with the first one masked."""
    for row in data.readable:
        hits = list(dict.fromkeys(hit for text in _text.every(row.value) for hit in find(text)))
        if hits:
            more = f" and {len(hits) - 1} more" if len(hits) > 1 else ""
            yield rows.Found(row.line, f"{what} {_text.masked(hits[0])}{more}")
