"""OpenAI's `message_missing_key`: a message without role or content."""

from collections.abc import Iterator

from ftjax.data import files, rows
from ftjax.data.checks import _chats

SEVERITY = "error"
WHY = "A message needs to say who speaks and what; training refuses the row."
FIX = "Give every message 'role' and 'content' (ShareGPT: 'from' and 'value')."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields messages that lack a key; 'content' may be absent where there are tool calls."""
    for turn in _chats.turns(data):
        if not isinstance(turn.value, dict):
            continue
        sharegpt = "from" in turn.value or ("value" in turn.value and "content" not in turn.value)
        role, content = ("from", "value") if sharegpt else ("role", "content")
        calls = turn.value.get("tool_calls") or turn.value.get("function_call")
        lacking = [role] if role not in turn.value else []
        lacking += [content] if content not in turn.value and not calls else []
        for key in lacking:
            hint = files.close_to(key, [name for name in turn.value if isinstance(name, str)])
            yield rows.Found(
                turn.line, f"{turn.at} has no {key!r}{hint}; keys found: {', '.join(turn.value) or 'none'}"
            )
