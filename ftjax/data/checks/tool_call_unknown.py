"""Calls of tools that the row does not offer."""

from collections.abc import Iterator

from ftjax.data import files, rows
from ftjax.data.checks import _calls

SEVERITY = "warning"
WHY = "The model learns to call tools that it was not told of."
FIX = "Add the tool to 'tools', or mend its name."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields calls by names that are not offered, in rows that offer any, and calls in rows that offer none."""
    for call in _calls.made(data):
        if call.name not in call.offered:
            hint = files.close_to(call.name, list(call.offered))
            offered = f"offered: {', '.join(call.offered)}" if call.offered else "the row has no 'tools'"
            yield rows.Found(call.line, f"message {call.number} calls {call.name!r}{hint}; {offered}")
