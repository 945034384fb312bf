"""OpenAI's `example_missing_assistant_message`: a chat in which the model never speaks."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _chats

SEVERITY = "error"
WHY = "There is no answer to learn from; training refuses the row."
FIX = "Add the answer, or remove the row."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields chats without a message of the assistant; a prompt beside its completion needs none."""
    for row in data.rows:
        for chat in _chats.of(row.value):
            if chat.column in ("prompt", "input.messages") or (data.of_preferences and chat.column in _chats.LISTS):
                continue
            said = [str(turn.role) for turn in _chats.numbered(row.line, chat)]
            if said and "assistant" not in said:
                yield rows.Found(row.line, f"no message of the assistant in {chat.column!r} (roles: {', '.join(said)})")
