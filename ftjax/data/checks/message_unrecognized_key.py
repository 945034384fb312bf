"""OpenAI's `message_unrecognized_key`: a message with a key that nothing reads."""

from collections.abc import Iterator

from ftjax.data import files, rows
from ftjax.data.checks import _chats

SEVERITY = "warning"
WHY = "Nothing reads the key, so what it says is not trained on; a misspelt one is lost in silence."
FIX = "Rename the key if it is misspelt; else move it out of the message, into a column of the row."
KNOWN = (
    *("role", "content", "name", "function_call", "weight", "tool_calls", "tool_call_id"),
    *("reasoning_content", "thinking", "reasoning", "refusal"),
)
SHAREGPT = ("from", "value", "weight")


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields messages with other keys, null ones left out."""
    for turn in _chats.turns(data):
        if not isinstance(turn.value, dict):
            continue
        known = SHAREGPT if "from" in turn.value and "role" not in turn.value else KNOWN
        for key, value in turn.value.items():
            if value is not None and key not in known:
                hint = files.close_to(key, list(known))
                yield rows.Found(turn.line, f"{turn.at} has the key {key!r}, which nothing reads{hint}")
