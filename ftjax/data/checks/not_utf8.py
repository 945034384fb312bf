"""Bytes that are not UTF-8."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _unread

SEVERITY = "error"
WHY = "Text in another encoding reads as other characters; training stops there."
FIX = "Save the file as UTF-8."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields the lines that could not be read for this reason."""
    return _unread.because(data, "not_utf8")
