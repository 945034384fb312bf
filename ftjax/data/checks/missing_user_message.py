"""A chat in which nobody asks."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _chats

SEVERITY = "warning"
WHY = "The model learns to answer without a question; most templates refuse such a chat."
FIX = "Put the question back, or remove the row."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields whole chats without a message of the user."""
    for row in data.rows:
        for chat in _chats.of(row.value):
            said = [turn.role for turn in _chats.numbered(row.line, chat)]
            if chat.column in _chats.LISTS and "assistant" in said and "user" not in said:
                yield rows.Found(row.line, f"no message of the user in {chat.column!r}")
