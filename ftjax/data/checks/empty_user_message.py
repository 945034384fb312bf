"""An empty message of the user."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _chats

SEVERITY = "warning"
WHY = "The model learns to answer nothing at all; as an edge case it is wanted, as a lost question it is not."
FIX = "Put the question back; keep the row if it is there to teach what to say to empty input."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields messages of the user that hold no text."""
    for turn in _chats.turns(data):
        if turn.role == "user" and isinstance(turn.content, str) and not turn.content.strip():
            yield rows.Found(turn.line, f"{turn.at} of the user is empty")
