"""Ragged white space in what the model is to write."""

from collections.abc import Iterator
import re
from typing import Any

from ftjax.data import records, rows
from ftjax.data.checks import _text

SEVERITY = "note"
WHY = "The model learns the spaces as part of the answer; they cost tokens and spoil exact comparison."
FIX = "Strip answers (--fix does) and join the runs of spaces inside them."
_RUN = re.compile(r"(?<=\S)[ \t]{3,}(?=\S)|\n[ \t]*\n[ \t]*\n[ \t]*\n|\n[ \t]{12,}(?=\S)")
_TABLE = re.compile(r"```|^[ \t]*\|", re.MULTILINE)
_COLUMNS = (("instruction", "output"), ("question", "answer"))


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields chats whose answers begin or end with white space, or hold runs of it outside of code and tables."""
    for row, sample in zip(data.readable, data.samples, strict=True):
        if not isinstance(row.record, records.Conversation):
            continue  # the space that begins a plain completion separates it from its prompt
        for answer in sample.answers:
            run = None if _TABLE.search(answer) else _RUN.search(answer)
            if answer != answer.strip() or run:
                around = answer[max(run.start() - 12, 0) : run.end() + 12] if run else answer
                what = "a run of white space" if run else "white space around the answer"
                yield rows.Found(row.line, f"{what}: {_text.shown(around)}")
                break


def repair(value: Any) -> Any:
    """Returns the row with the answers of a chat stripped; runs inside of them stay."""
    made = dict(value)
    for name, key in (("messages", "content"), ("conversations", "value")):
        if isinstance(value.get(name), list):
            turns = [_stripped(turn, key) for turn in value[name]]
            if any(a is not b for a, b in zip(turns, value[name], strict=True)):
                made[name] = turns
    for asked, column in _COLUMNS:
        text = value.get(column)
        if asked in value and isinstance(text, str) and text != text.strip():
            made[column] = text.strip()
    return made if any(made[key] is not value[key] for key in value) else value


def _stripped(turn: Any, key: str) -> Any:
    if not isinstance(turn, dict) or not isinstance(turn.get(key), str):
        return turn
    said = turn.get("role", turn.get("from"))
    answers = said == "assistant" or (isinstance(said, str) and records.SHAREGPT.get(said) == "assistant")
    return {**turn, key: turn[key].strip()} if answers and turn[key] != turn[key].strip() else turn
