"""OpenAI's `data_type`: a row, or a message of one, that is no object."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _chats, _unread

SEVERITY = "error"
WHY = "A row that is no object has no columns, so there is nothing to train on."
FIX = 'Write each row as an object, such as {"messages": [{"role": ..., "content": ...}]}.'


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows and messages of another type."""
    yield from _unread.because(data, "data_type")
    for turn in _chats.turns(data):
        if not isinstance(turn.value, dict):
            yield rows.Found(turn.line, f"{turn.at} is {type(turn.value).__name__}, not an object")
