"""Files of questions: rows whose last turn is the user's, or with a plain `prompt`; a last answer is left out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ftjax.data import records
from ftjax.errors import UserError


class Question(NamedTuple):
    """A chat that waits for an answer, and the row that it came from."""

    messages: tuple[records.Message, ...]
    row: Mapping[str, Any]
    where: str


def read(path: str | Path) -> list[Question]:
    """Returns the questions of a file in any format that training reads; raises UserError with file and line."""
    found = [_question(row, where) for where, row in records.source(str(path)).read(str(path))]
    if not found:
        raise UserError(f"{path} holds no row; give a file with `messages` or `prompt`")
    return found


def _question(row: Mapping[str, Any], where: str) -> Question:
    if isinstance(row.get("prompt"), str):
        records.text(row["prompt"], "prompt", where)
        if not row["prompt"].strip():
            raise UserError(f"{where}: prompt is empty; a model needs something to answer")
        return Question((records.Message(role="user", content=row["prompt"]),), row, where)
    given = row.get("messages", row.get("prompt"))
    if not isinstance(given, list) or not given:
        raise UserError(f"{where}: the row has neither `messages` nor `prompt`; its columns are {', '.join(row)}")
    turns = records.messages(given, where)
    while turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    if not turns:
        raise UserError(f"{where}: the row has no question, only answers")
    return Question(turns, row, where)
