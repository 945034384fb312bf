"""OpenAI's `unrecognized_role`: a speaker that no template knows."""

from collections.abc import Iterator
from typing import Any

from ftjax.data import files, records, rows
from ftjax.data.checks import _chats

SEVERITY = "error"
WHY = "Templates write known roles only; training refuses the row."
FIX = "Use system, developer, user, assistant or tool; --fix renames human, gpt, chatgpt and model."
_MEANT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields messages of another role."""
    for turn in _chats.turns(data):
        if turn.role is not None and turn.role not in records.ROLES:
            hint = files.close_to(str(turn.role), list(records.ROLES))
            yield rows.Found(turn.line, f"{turn.at} has the role {turn.role!r}{hint}")


def repair(value: Any) -> Any:
    """Returns the row with the roles of other formats under the names that `messages` has."""
    turns = value.get("messages")
    if not isinstance(turns, list):
        return value
    meant = [_meant(turn) for turn in turns]
    return {**value, "messages": meant} if any(a is not b for a, b in zip(meant, turns, strict=True)) else value


def _meant(turn: Any) -> Any:
    role = turn.get("role") if isinstance(turn, dict) else None
    return {**turn, "role": _MEANT[role]} if isinstance(role, str) and role in _MEANT else turn
