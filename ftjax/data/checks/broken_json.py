"""A line that is no JSON."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _unread

SEVERITY = "error"
WHY = "A line cut off or edited by hand is no row, and training stops there."
FIX = "Mend the JSON of the line, or write the file again with a JSON library."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields the lines that could not be read for this reason."""
    return _unread.because(data, "broken_json")
