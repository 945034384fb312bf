"""OpenAI's `missing_messages_list`: a row without a column that training reads, or with an empty one."""

from collections.abc import Iterator

from ftjax.data import preferences, records, rows

SEVERITY = "error"
WHY = "Training finds neither question nor answer in the row and refuses it."
FIX = "Rename the columns (check and convert take --columns prompt=COLUMN,completion=COLUMN), or remove the row."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields refused rows of unknown columns, and those whose list of messages is no list or empty."""
    for row in data.rows:
        if row.record is not None or not isinstance(row.value, dict):
            continue
        have = {key for key, value in row.value.items() if value is not None}
        known = set(preferences.COLUMNS) | set(preferences.BEHAVIOUR) if data.of_preferences else set(records.COLUMNS)
        if not have & known:
            yield rows.Found(row.line, f"no column that training reads; columns found: {_names(row.value)}")
            continue
        for name in ("messages", "conversations"):
            value = row.value.get(name)
            if name in have and (not value or not isinstance(value, (list, tuple, str))):
                shown = "empty" if isinstance(value, (list, tuple, str)) else f"{type(value).__name__}, not a list"
                yield rows.Found(row.line, f"{name!r} is {shown}")


def _names(value: dict[str, object]) -> str:
    return ", ".join(map(repr, value)) or "none"
