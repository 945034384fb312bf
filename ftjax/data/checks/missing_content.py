"""OpenAI's `missing_content`: an answer that is empty, or content that is no text."""

from collections.abc import Iterator
from typing import Any

from ftjax.data import records, rows
from ftjax.data.checks import _chats, missing_messages_list

SEVERITY = "error"
WHY = "An empty answer teaches the model to say nothing; training refuses the row."
FIX = "Fill the answer, or remove the row."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields messages without content and answers without text; an empty message of the user is another rule's."""
    if missing_messages_list.columns_of_all(data) is not None:
        return
    for row in data.rows:
        if not isinstance(row.value, dict):
            continue
        chats = _chats.of(row.value)
        for chat in chats:
            for turn in _chats.numbered(row.line, chat):
                problem = _problem(turn)
                if problem:
                    yield rows.Found(row.line, f"{turn.at} {problem}")
        for column in _missing(row, {chat.column for chat in chats}):
            value = row.value.get(column)
            what = "is absent" if value is None else "holds no text"
            yield rows.Found(row.line, f"the answer in {column!r} {what}")


def _problem(turn: _chats.Turn) -> str | None:
    if not isinstance(turn.value, dict) or turn.value.get("tool_calls") or turn.value.get("function_call"):
        return None
    named = "content" in turn.value or "value" in turn.value
    if turn.content is None and named:
        return "has null for content"
    if turn.content is not None and not isinstance(turn.content, (str, list, tuple)):
        return f"has {type(turn.content).__name__} for content, not text"
    empty = isinstance(turn.content, (str, list, tuple)) and not (
        turn.content.strip() if isinstance(turn.content, str) else turn.content
    )
    return f"is an empty answer of the {turn.role}" if empty and turn.role == "assistant" else None


def _missing(row: rows.Row, seen: set[str]) -> Iterator[str]:
    """Yields columns of text that should hold the answer and do not."""
    if row.record is not None:
        return
    for asked, answer in records.HALVES:
        if row.value.get(asked) is not None and row.value.get(answer) is None and not _other(row.value, asked):
            yield answer
    for column in _chats.TEXTS:
        value: Any = row.value.get(column)
        if column not in seen and isinstance(value, str) and not value.strip():
            yield column


def _other(value: dict[str, Any], asked: str) -> bool:
    """Tells whether the row has its answers elsewhere."""
    names = ("messages", "conversations", "text", "chosen", "rejected", "completions", "answer_matching_behavior")
    halves = [b for a, b in records.HALVES if a != asked]
    return any(value.get(name) is not None for name in (*names, *halves))
