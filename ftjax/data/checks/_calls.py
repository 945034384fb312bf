"""The tool calls of a row that training takes, each with the schema of its tool and the answer that it got."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ftjax.data import preferences, records, rows


class Call(NamedTuple):
    """A call in message `number` (from 1). `answers` is how many messages of a tool follow, `calls` how many calls."""

    line: int
    number: int
    name: str
    arguments: dict[str, Any]
    schema: Mapping[str, Any] | None
    offered: tuple[str, ...]


class Round(NamedTuple):
    """The calls of one message, and the messages of tools that follow it; `last`: the chat ends with the calls."""

    line: int
    number: int
    calls: tuple[dict[str, Any], ...]
    answers: tuple[records.Message, ...]
    last: bool


def made(data: rows.DataFile) -> Iterator[Call]:
    """Yields every call of a file."""
    for line, turns, tools in _chats(data):
        schemas = {name: schema for tool in tools for name, schema in _named(tool)}
        for number, turn in enumerate(turns, start=1):
            for call in turn.tool_calls:
                name = call["function"]["name"]
                yield Call(line, number, name, call["function"]["arguments"], schemas.get(name), tuple(schemas))


def rounds(data: rows.DataFile) -> Iterator[Round]:
    """Yields the messages that call tools, and those that answer without a call (with no calls)."""
    for line, turns, _ in _chats(data):
        at = 0
        while at < len(turns):
            calls = turns[at].tool_calls
            end = at + 1 if calls else at
            while end < len(turns) and turns[end].role == "tool":
                end += 1
            if calls or end > at:
                start = at + 1 if calls else at
                yield Round(line, at + 1, calls, tuple(turns[start:end]), end == len(turns) and start == end)
            at = max(end, at + 1)


def _chats(data: rows.DataFile) -> Iterator[tuple[int, tuple[records.Message, ...], tuple[dict[str, Any], ...]]]:
    for row in data.readable:
        record = row.record
        if isinstance(record, records.Conversation):
            yield row.line, record.messages, record.tools
        elif isinstance(record, preferences.Preference) and not isinstance(record.prompt, str):
            for completion in record.completions:
                assert not isinstance(completion, str)
                yield row.line, record.prompt + completion, record.tools


def _named(tool: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    function = tool.get("function", tool)
    if isinstance(function, Mapping) and isinstance(function.get("name"), str):
        schema = function.get("parameters", function.get("input_schema"))
        yield function["name"], schema if isinstance(schema, Mapping) else {}
