"""What reading a row leaves behind: keys inside a message, a tool call or OpenAI's `input` that no record has.

Columns that are not used are kept in a record's `extra`; keys inside of the columns that are used are not.
"""

from collections.abc import Iterator, Mapping
import json
from typing import Any

from ftjax.data import preferences, records

_MESSAGE = {
    *("role", "content", "weight", "name", "tool_calls", "function_call", "tool_call_id"),
    *("reasoning_content", "thinking", "reasoning"),
}
_TURN = {"from", "value", "weight"}
_CALL = {"id", "type", "function"}
_FUNCTION = {"name", "arguments"}
_INPUT = {"messages", "tools"}
# Columns whose text may be a list of messages as JSON; in others such text is an answer.
_UNPACKED = ("messages", "conversations", "input", "completions", *preferences.OUTPUTS)


def keys(row: Mapping[str, Any], record: records.Record | preferences.Preference) -> Iterator[tuple[str, str]]:
    """Yields each key with a value that a record of the row lacks, and what it is a key of."""
    for column, value in row.items():
        if column in record.extra or column == "tools":
            continue
        if column in _UNPACKED and isinstance(value, str) and value.lstrip().startswith(("[", "{")):
            value = json.loads(value)
        if column == "input" and isinstance(value, dict):
            yield from _others(value, _INPUT, "'input'")
            value = value.get("messages")
        yield from _turns(value)


def _turns(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _turns(one)
    elif isinstance(value, dict) and "role" in value:
        yield from _others(value, _MESSAGE, "a message")
        for call in value.get("tool_calls") or ():
            yield from _call(call)
        if isinstance(value.get("function_call"), dict):
            yield from _others(value["function_call"], _FUNCTION, "a tool call")
    elif isinstance(value, dict) and "from" in value:
        yield from _others(value, _TURN, "a turn")


def _call(call: Any) -> Iterator[tuple[str, str]]:
    inner = call.get("function")
    if not isinstance(inner, dict):
        yield from _others(call, _FUNCTION | {"id", "type"}, "a tool call")
        return
    yield from _others(call, _CALL, "a tool call")
    yield from _others(inner, _FUNCTION, "a tool call")


def _others(value: Mapping[str, Any], known: set[str], what: str) -> Iterator[tuple[str, str]]:
    yield from ((key, what) for key, item in value.items() if item is not None and key not in known)
