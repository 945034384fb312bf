"""A record of a CSV file that does not fit its header."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _unread

SEVERITY = "error"
WHY = "Columns that shift put questions into answers; training stops there."
FIX = "Quote fields that hold the delimiter, a quote or a newline."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields the lines that could not be read for this reason."""
    return _unread.because(data, "broken_csv")
