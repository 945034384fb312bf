"""Tool calls and tool schemas in the forms that people's files hold them, brought to the one that templates read."""

import json
from typing import Any

from ftjax import errors


def calls(value: Any, at: str) -> tuple[dict[str, Any], ...]:
    """Returns tool calls as {"type", "function": {"name", "arguments": dict}}.

    OpenAI writes the arguments as JSON text; the templates of Llama, Qwen and Mistral apply `tojson` to them and would
    quote that text a second time, so it is parsed here.
    """
    if not isinstance(value, (list, tuple)):
        raise errors.UserError(f"{at}: 'tool_calls' must be a list, not {type(value).__name__}")
    return tuple(_call(item, at) for item in value)


def _call(item: Any, at: str) -> dict[str, Any]:
    function = item.get("function", item) if isinstance(item, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise errors.UserError(
            f"{at}: a tool call must be {{'function': {{'name': ..., 'arguments': ...}}}}, not {item!r}"
        )
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError as bad:
            raise errors.UserError(
                f"{at}: the arguments of tool call {function['name']!r} are not JSON: {bad.msg} at character {bad.pos}"
            ) from None
    if not isinstance(arguments, (dict, type(None))):
        raise errors.UserError(f"{at}: the arguments of tool call {function['name']!r} must be a JSON object")
    call: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}
    if isinstance(item.get("id"), str):
        call["id"] = item["id"]
    return call


def from_text(value: Any, at: str) -> list[dict[str, Any]]:
    """Returns the calls of a ShareGPT `function_call` turn: JSON text of one {"name", "arguments"} or several."""
    try:
        parsed = json.loads(value)
    except (TypeError, json.JSONDecodeError) as bad:
        raise errors.UserError(
            f"{at}: a function_call turn must hold JSON text with name and arguments: {bad}"
        ) from None
    return parsed if isinstance(parsed, list) else [parsed]


def schemas(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Returns the tools of a row as a tuple of JSON schemas."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
        raise errors.UserError(f"{where}: 'tools' must be a list of JSON schemas (objects), or that list as JSON text")
    return tuple(value)
