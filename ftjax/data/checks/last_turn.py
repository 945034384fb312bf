"""A chat that does not end with the assistant: what follows the last answer is never trained on."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _chats

SEVERITY = "warning"
WHY = "The last turns are not trained on; often an answer was lost at the end."
FIX = "Add the answer that is missing, or cut the turns after the last answer."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields chats with an answer that end with somebody else."""
    for row in data.rows:
        for chat in _chats.of(row.value):
            said = [turn.role for turn in _chats.numbered(row.line, chat)]
            prompt = chat.column in ("prompt", "input.messages") or (
                data.of_preferences and chat.column in _chats.LISTS
            )
            if not prompt and "assistant" in said and said[-1] != "assistant":
                yield rows.Found(row.line, f"{chat.column!r} ends with a message of the {said[-1]}")
