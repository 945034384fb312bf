"""Chosen and rejected that answer different prompts."""

from collections.abc import Iterator
from typing import Any

from ftjax.data import rows
from ftjax.data.checks import _chats, _text

SEVERITY = "error"
WHY = "A preference compares two answers to one prompt; with two prompts it compares nothing."
FIX = "Give both sides the same turns before the last answer, or remove the row."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows whose two chats part before the last answers, with the first message that differs."""
    for row in data.rows:
        sides = [chat for chat in _chats.of(row.value) if chat.column in _chats.SIDES and chat.whole]
        if len(sides) != 2:
            continue
        first, second = (_said(row.line, chat)[:-1] for chat in sides)
        if first == second or (row.record is not None and data.of_preferences):
            continue  # answers of several turns may part earlier, which training reads right
        at = next(
            (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
        )
        shown = [
            f"{one[at][0]} {_text.shown(str(one[at][1]))}" if at < len(one) else "nothing" for one in (first, second)
        ]
        yield rows.Found(row.line, f"the prompts differ at message {at + 1}: {shown[0]} against {shown[1]}")


def _said(line: int, chat: _chats.Chat) -> list[tuple[Any, Any]]:
    return [(turn.role, turn.content) for turn in _chats.numbered(line, chat)]
