"""A file of 50 to 499 rows."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _text, fewer_than_50

SEVERITY = "note"
WHY = "It is enough to begin with; results usually grow until some hundreds to thousands of good examples."
FIX = "Aim at 500 to 5,000, where the held-out loss still falls with more."
LEAST = 500


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields one finding where rows are between 50 and 499."""
    if fewer_than_50.LEAST <= len(data.readable) < LEAST:
        yield rows.Found(None, f"{_text.plural(len(data.readable), 'row')} can be trained on, fewer than {LEAST}")
