"""The chats of a row as they stand in the file, before anything is checked: what the rules on structure look at."""

from collections.abc import Iterator
import json
from typing import Any, NamedTuple

from ftjax.data import prompt_forms, records, rows

LISTS = ("messages", "conversations")
SIDES = ("chosen", "rejected", "preferred_output", "non_preferred_output")
TEXTS = ("text", "completion", "output", "answer", "chosen", "rejected")  # columns that hold what the model is to write
_COLUMNS = (*LISTS, *SIDES)


class Chat(NamedTuple):
    """A list of turns, and the column that it is in. `whole`: it holds the question too."""

    column: str
    turns: list[Any]
    whole: bool


class Turn(NamedTuple):
    """A turn of a chat, whatever it is, counted from 1; `role` and `content` are None where it has none."""

    line: int
    column: str
    number: int
    value: Any
    role: Any
    content: Any

    @property
    def at(self) -> str:
        """Says which message it is."""
        return f"message {self.number}" if self.column in LISTS else f"message {self.number} of {self.column!r}"


def of(value: Any) -> list[Chat]:
    """Returns the chats of a row; columns that hold none are left out."""
    if not isinstance(value, dict):
        return []
    found = [(name, _list(value[name])) for name in _COLUMNS if name in value]
    chats = [Chat(name, turns, name not in SIDES or len(turns) > 1) for name, turns in found if turns is not None]
    given = value.get("input")
    if isinstance(given, dict) and isinstance(given.get("messages"), list):
        chats.append(Chat("input.messages", given["messages"], False))
    if not chats and ("completion" in value or "completions" in value):
        chats += [Chat(name, turns, False) for name in ("prompt", "completion") if (turns := _list(value.get(name)))]
    return chats


def turns(data: rows.DataFile) -> Iterator[Turn]:
    """Yields every turn of every chat of a file."""
    for row in data.rows:
        for chat in of(row.value):
            yield from numbered(row.line, chat)


def numbered(line: int, chat: Chat) -> Iterator[Turn]:
    """Yields the turns of a chat, with roles under OpenAI's names."""
    for number, turn in enumerate(chat.turns, start=1):
        yield _turn(line, chat.column, number, turn)


def _turn(line: int, column: str, number: int, turn: Any) -> Turn:
    if not isinstance(turn, dict):
        return Turn(line, column, number, turn, None, None)
    if "from" in turn and "role" not in turn:
        said = turn["from"]
        role = records.SHAREGPT.get(said, said) if isinstance(said, str) else said
        return Turn(line, column, number, turn, "assistant" if role == "function_call" else role, turn.get("value"))
    return Turn(line, column, number, turn, turn.get("role"), turn.get("content"))


def _list(value: Any) -> list[Any] | None:
    """Returns the turns of a value: a list, one as JSON text, or an HH transcript."""
    if isinstance(value, str) and value.startswith(prompt_forms.HUMAN):
        return prompt_forms.transcript_turns(value)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return list(value) if isinstance(value, (list, tuple)) and not _texts(value) else None


def _texts(value: Any) -> bool:
    return bool(value) and isinstance(value[0], str) and all(isinstance(item, str) for item in value)
