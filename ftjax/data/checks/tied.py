"""Rankings in which all completions have the same place."""

from collections.abc import Iterator

from ftjax.data import preferences, rows

SEVERITY = "note"
WHY = "There is no better one to learn; training leaves the row out."
FIX = "Rank again, or remove the row."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows of several completions without one that is better."""
    for row in data.readable:
        if isinstance(row.record, preferences.Preference) and not row.record.pairs and len(row.record.completions) > 1:
            yield rows.Found(row.line, f"{len(row.record.completions)} completions, all of the same rank or score")
