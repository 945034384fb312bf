"""A file of fewer than 50 rows."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "Below 50 to 100 good examples fine-tuning rarely teaches more than a form; a prompt may do as well."
FIX = "Collect at least 50 to 100 good examples."
LEAST = 50


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields one finding where fewer rows can be trained on."""
    if len(data.readable) < LEAST:
        yield rows.Found(None, f"{_text.plural(len(data.readable), 'row')} can be trained on, fewer than {LEAST}")
