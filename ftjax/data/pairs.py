"""Files of two answers to one prompt, a judge's work: `prompt`, `a`, `b`, and if known `reference` and `human`.

`prompt` is a text or a list of messages. `human` is who people think is better: a, b or tie, or a list of such votes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ftjax import errors, lookup
from ftjax.data import records

VOTES = ("a", "b", "tie")
COLUMNS = ("prompt", "a", "b", "reference", "human")


class Pair(NamedTuple):
    """Two answers to one prompt."""

    prompt: str
    a: str
    b: str
    reference: str  # empty: none is known
    human: tuple[str, ...]  # votes: a, b, tie
    where: str


def read(path: str | Path) -> list[Pair]:
    """Returns the pairs of a file; a UserError names file and line of a row that is none."""
    found = [from_row(row, where) for where, row in records.source(str(path)).read(str(path))]
    if not found:
        raise errors.UserError(f"{path} holds no row; give a file with the columns prompt, a and b")
    return found


def from_row(row: Mapping[str, Any], where: str) -> Pair:
    """Returns the pair of a row; `where` ("file:line") begins every error message."""
    missing = [name for name in ("prompt", "a", "b") if row.get(name) is None]
    if missing:
        near = lookup.suggestion(missing[0], [name for name in row if name not in COLUMNS])
        raise errors.UserError(f"{where}: the row has no {missing[0]!r}; its columns are {', '.join(row)}.{near}")
    a, b, reference = texts = row["a"], row["b"], row.get("reference")
    for name, text in zip(("a", "b", "reference"), texts, strict=True):
        if not isinstance(text, str | None):
            raise errors.UserError(f"{where}: {name} is {text!r:.60}; it must be the text of an answer")
        records.text(text or "", name, where)
    return Pair(_prompt(row["prompt"], where), a, b, reference or "", _votes(row.get("human"), where), where)


def _prompt(given: Any, where: str) -> str:
    """Returns a prompt as one text: that of a single message as it is, several with the names of their roles."""
    if isinstance(given, list) and given:
        turns = records.messages(given, where)
        given = turns[0].content if len(turns) == 1 else "\n\n".join(f"{one.role}: {one.content}" for one in turns)
    if not isinstance(given, str) or not given.strip():
        raise errors.UserError(f"{where}: prompt is {given!r:.60}; it must be a text or a list of messages")
    return records.text(given, "prompt", where)


def _votes(given: Any, where: str) -> tuple[str, ...]:
    votes = () if given is None or given == "" else tuple(given) if isinstance(given, list) else (given,)
    for vote in votes:
        if vote not in VOTES:
            raise errors.UserError(f"{where}: human is {vote!r:.60}; it must be one of {', '.join(VOTES)}, or a list")
    return votes
