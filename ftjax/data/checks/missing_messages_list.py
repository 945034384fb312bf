"""OpenAI's `missing_messages_list`: a row without a column that training reads, or with an empty one."""

from collections.abc import Iterator

from ftjax.data import preferences, records, rows

SEVERITY = "error"
WHY = "Training finds neither question nor answer in the row and refuses it."
FIX = "Rename the columns (check and convert take --columns prompt=COLUMN,completion=COLUMN), or remove the row."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields refused rows of unknown columns, and those whose list of messages is no list or empty.

    Where no row of the file has the columns, that is one finding.
    """
    alike = columns_of_all(data)
    if alike is not None:
        yield rows.Found(None, alike)
        return
    for row in data.rows:
        if row.record is not None or not isinstance(row.value, dict):
            continue
        have = {key for key, value in row.value.items() if value is not None}
        if not have & _known(data):
            yield rows.Found(row.line, f"no column that training reads; columns found: {_names(row.value)}")
            continue
        for name in ("messages", "conversations"):
            value = row.value.get(name)
            if name in have and (not value or not isinstance(value, (list, tuple, str))):
                shown = "empty" if isinstance(value, (list, tuple, str)) else f"{type(value).__name__}, not a list"
                yield rows.Found(row.line, f"{name!r} is {shown}")


def columns_of_all(data: rows.DataFile) -> str | None:
    """Returns what is wrong with the columns of every row alike, or None; it takes two rows to be a habit."""
    values = [row.value for row in data.rows if isinstance(row.value, dict)]
    if len(values) < 2 or data.readable:
        return None
    have = set().union(*values)
    said = f"; columns found: {_names(values[0])}"
    if not have & _known(data):
        return f"none of {len(values):,} rows has a column that training reads{said}"
    for asked, answer in records.HALVES:
        if all(asked in value for value in values) and answer not in have and not have & _ENOUGH:
            return f"column {asked!r} without {answer!r} in all {len(values):,} rows{said}"
    return None


def _known(data: rows.DataFile) -> set[str]:
    more = (*preferences.COLUMNS, *preferences.BEHAVIOUR) if data.of_preferences else ()
    return {*records.COLUMNS, *more}


def _names(value: dict[str, object]) -> str:
    return ", ".join(map(repr, value)) or "none"


# Columns that hold answers without a column beside them.
_ENOUGH = {"messages", "conversations", "text", "chosen", "rejected", "completions"}
