"""Turns that do not alternate: two in a row of one speaker, a system message in the middle, an assistant who begins."""

from collections.abc import Iterator
import itertools

from ftjax.data import rows
from ftjax.data.checks import _chats

SEVERITY = "warning"
WHY = "Chats at inference alternate; a lost or doubled turn teaches answers to questions that were not asked."
FIX = "Merge turns of one speaker, put the lost turn back, or remove the row."
_FIRST = ("system", "developer")


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields chats out of order, one finding for each place; several calls of tools in a row are in order."""
    for row in data.rows:
        for chat in _chats.of(row.value):
            turns = list(_chats.numbered(row.line, chat))
            if chat.whole and turns and _opener(turns) == "assistant":
                yield rows.Found(row.line, f"{chat.column!r} begins with the assistant")
            for before, after in itertools.pairwise(turns):
                if before.role == after.role and before.role in ("user", "assistant"):
                    yield rows.Found(row.line, f"{before.at} and {after.number} are both of the {before.role}")
                elif after.role in _FIRST and before.role not in _FIRST:
                    yield rows.Found(row.line, f"{after.at} is of the {after.role}, after others have spoken")


def _opener(turns: list[_chats.Turn]) -> object:
    return next((turn.role for turn in turns if turn.role not in _FIRST), None)
