"""Rows that could not be read at all, by reason."""

from collections.abc import Iterator

from ftjax.data import files, rows


def because(data: rows.DataFile, rule: str) -> Iterator[rows.Found]:
    """Yields the rows whose reading failed by a rule."""
    for row in data.rows:
        if isinstance(row.refusal, files.BadRow) and row.refusal.rule == rule:
            lost = "; nothing behind it can be read" if row.refusal.last else ""
            yield rows.Found(row.line, f"{reason(data, row)}{lost}")


def reason(data: rows.DataFile, row: rows.Row) -> str:
    """Returns why a row was refused, without the place that begins the sentence."""
    text = str(row.refusal)
    return text.removeprefix(data.path).lstrip(":0123456789").lstrip() if text.startswith(data.path) else text
