"""What a row of a data file may be: a Conversation, a Completion or a Text, and how a file becomes a list of them.

Accepted columns, first match wins: `messages` (OpenAI and TRL; `tools`, per-message `weight`), `conversations`
(ShareGPT), `prompt` and `completion` (both text, or either a list of messages), `instruction` and `output` (Alpaca;
`input`, `system`, `history`), `question` and `answer`, `text`. A None counts as an absent
value, because Parquet and Arrow fill missing fields with it. To add a kind of row, add a dataclass and a branch in
`from_row`.
"""

from collections.abc import Collection
import dataclasses
import importlib
import json
import pkgutil
from types import ModuleType
from typing import Any

from ftjax import errors
from ftjax.data import files, sources, tools

ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "function_call",
}
COLUMNS = ("messages", "conversations", "prompt", "completion", "instruction", "output", "question", "answer", "text")
ALPACA = ("instruction", "input", "system", "history", "output")
HALVES = (("prompt", "completion"), ("instruction", "output"), ("question", "answer"))


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn. `weight` 0 keeps an assistant turn as context without training on it."""

    role: str
    content: str
    weight: int = 1
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None

    def for_template(self) -> dict[str, Any]:
        """Returns the dict that a chat template sees: absent fields are absent, not None."""
        shown: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            shown["tool_calls"] = list(self.tool_calls)
        if self.reasoning_content is not None:
            shown["reasoning_content"] = shown["thinking"] = self.reasoning_content
        for key in ("tool_call_id", "name"):
            if getattr(self, key) is not None:
                shown[key] = getattr(self, key)
        return shown


@dataclasses.dataclass(frozen=True)
class Conversation:
    """A chat; its assistant messages of weight 1 are trained on."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    where: str
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Completion:
    """Plain text that is continued; only the completion is trained on, and no chat template is used."""

    prompt: str
    completion: str
    where: str
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Text:
    """Plain text, trained on from the first token to the end."""

    text: str
    where: str
    extra: dict[str, Any]


Record = Conversation | Completion | Text


def read(path: str) -> list[Record]:
    """Returns the records of a file, `datasets` folder or "world:" task; a UserError names the line of a bad row."""
    return [from_row(row, where) for where, row in source(path).read(str(path))]


def rows_at(path: str, places: Collection[str]) -> dict[str, dict[str, Any]]:
    """Returns the rows of a file that stand at these places ("file:line"), as they stand there."""
    wanted, found = set(places), {}
    for where, row in source(path).read(str(path)):
        if where in wanted:
            found[where] = row
        if len(found) == len(wanted):
            break
    return found


def source(path: str) -> ModuleType:
    """Returns the module of `sources/` that reads the path, by its ending or kind."""
    path = str(path)
    known = [
        importlib.import_module(f"{sources.__name__}.{entry.name}") for entry in pkgutil.iter_modules(sources.__path__)
    ]
    for module in known:
        if module.accepts(path):
            return module
    if not path.startswith("world:"):
        files.existing(path)
    endings = ", ".join(suffix for module in known for suffix in module.SUFFIXES)
    raise errors.UserError(f"{path}: unknown kind of data file; known endings: {endings}")


def from_row(row: dict[str, Any], where: str) -> Record:
    """Returns the record that a row holds; `where` ("file:line") begins every error message."""
    row = {key: value for key, value in row.items() if value is not None}
    if "messages" in row:
        turns = messages(unpacked(row["messages"], "messages", where), where)
        return _conversation(turns, row, ("messages", "tools"), where)
    if "conversations" in row:
        turns = messages(sharegpt(row, where), where)
        return _conversation(turns, row, ("conversations", "tools", "system"), where)
    if "prompt" in row and "completion" in row:
        return _completion(row, where)
    if "instruction" in row and "output" in row:
        asked = alpaca(row, where)
        return _conversation((*asked, _answer(row, "output", where)), row, (*ALPACA, "tools"), where)
    if "question" in row and "answer" in row:
        asked = (Message(role="user", content=text(row["question"], "'question'", where)),)
        return _conversation((*asked, _answer(row, "answer", where)), row, ("question", "answer", "tools"), where)
    if "text" in row:
        plain = text(row["text"], "text", where)
        if not plain.strip():
            raise errors.UserError(f"{where}: 'text' is empty; remove the row")
        return Text(text=plain, where=where, extra=rest(row, ("text",)))
    raise errors.UserError(f"{where}: {_missing(row)}")


def messages(value: Any, where: str) -> tuple[Message, ...]:
    """Returns the checked messages of a chat given as a list of dicts with role and content."""
    if not isinstance(value, (list, tuple)):
        raise errors.UserError(f"{where}: 'messages' must be a list of messages, not {type(value).__name__}")
    if not value:
        raise errors.UserError(f"{where}: 'messages' is an empty list; remove the row")
    return tuple(_message(item, index, where) for index, item in enumerate(value))


def sharegpt(row: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Returns the turns of `conversations` (and `system`) as a list of messages with role and content."""
    turns = unpacked(row["conversations"], "conversations", where)
    if not isinstance(turns, (list, tuple)):
        raise errors.UserError(f"{where}: 'conversations' must be a list of turns, not {type(turns).__name__}")
    found: list[dict[str, Any]] = []
    if isinstance(row.get("system"), str) and row["system"].strip():
        found.append({"role": "system", "content": row["system"]})
    for index, turn in enumerate(turns):
        at = f"{where}: turn {index + 1}"
        if not isinstance(turn, dict):
            raise errors.UserError(f"{at} must be an object with 'from' and 'value', not {type(turn).__name__}")
        if "role" in turn and "from" not in turn:
            found.append(turn)
            continue
        speaker = turn.get("from")
        if not isinstance(speaker, str) or speaker not in SHAREGPT:
            hint = files.close_to(str(speaker), list(SHAREGPT))
            raise errors.UserError(f"{at}: unknown role {speaker!r} in 'from'{hint}; roles: {', '.join(SHAREGPT)}")
        message: dict[str, Any] = {"role": SHAREGPT[speaker], "content": turn.get("value")}
        if SHAREGPT[speaker] == "function_call":
            message = {"role": "assistant", "tool_calls": tools.from_text(message["content"], at)}
        if turn.get("weight") is not None:
            message["weight"] = turn["weight"]
        found.append(message)
    return found


def alpaca(row: dict[str, Any], where: str) -> tuple[Message, ...]:
    """Returns `system`, `history` and `instruction` with `input` below it, as LLaMA-Factory joins them."""
    asked = [text(row[key], repr(key), where) for key in ("instruction", "input") if row.get(key)]
    if not asked:
        raise errors.UserError(f"{where}: 'instruction' is empty; fill it or remove the row")
    found = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    history = row.get("history") or []
    if not isinstance(history, (list, tuple)) or not all(
        isinstance(turn, (list, tuple)) and len(turn) == 2 for turn in history
    ):
        raise errors.UserError(f"{where}: 'history' must be a list of [question, answer]")
    for question, answer in history:
        found += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    found.append({"role": "user", "content": "\n".join(asked)})
    return messages(found, where)


def _answer(row: dict[str, Any], column: str, where: str) -> Message:
    content = text(row[column], repr(column), where)
    if not content.strip():
        raise errors.UserError(f"{where}: empty answer: {column!r} holds no text; fill it or remove the row")
    return Message(role="assistant", content=content)


def unpacked(value: Any, name: str, where: str) -> Any:
    """Returns the value, or what it holds as JSON text: CSV has no lists, and TRL writes `tools` as text."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as bad:
        raise errors.UserError(f"{where}: {name!r} is text but not JSON: {bad.msg} at character {bad.pos}") from None


def text(value: Any, name: str, where: str) -> str:
    """Returns a text, or the parts of one joined; `name` says in errors what it is."""
    if isinstance(value, (list, tuple)):
        parts = [part if isinstance(part, str) else _part(part, name, where) for part in value]
        value = "".join(parts)
    if not isinstance(value, str):
        raise errors.UserError(f"{where}: {name} must be text, not {type(value).__name__}")
    try:
        value.encode()  # a hundred times as fast as looking at each character
    except UnicodeEncodeError:
        raise errors.UserError(
            f"{where}: {name} holds half of a surrogate pair, which no UTF-8 text can; mend the escape"
        ) from None
    return value


def rest(row: dict[str, Any], used: tuple[str, ...]) -> dict[str, Any]:
    """Returns the columns of a row that are not used."""
    return {key: value for key, value in row.items() if key not in used}


def offered(row: dict[str, Any], where: str) -> tuple[dict[str, Any], ...]:
    """Returns the tools that a row offers the assistant, as JSON schemas; `tools` may be JSON text."""
    return tools.schemas(unpacked(row["tools"], "tools", where), where) if row.get("tools") else ()


def _missing(row: dict[str, Any]) -> str:
    found = ", ".join(repr(key) for key in row) or "none"
    if "chosen" in row or "rejected" in row:
        return (
            f"a row of preferences, not one of supervised training; columns found: {found}; name the answer to learn "
            "'completion', or train on preferences"
        )
    for have, lack in (*HALVES, *(pair[::-1] for pair in HALVES)):
        if have in row:
            others = [key for key in row if key != have]
            return f"column {have!r} without {lack!r}{files.close_to(lack, others)}; columns found: {found}"
    hints = [(key, files.close_to(key, list(COLUMNS))) for key in row]
    hint = next((f"; {key!r}:{close.rstrip(')').replace(' (', ' ')}" for key, close in hints if close), "")
    return (
        "no 'messages' column (nor 'conversations', 'prompt' with 'completion', or 'text'); "
        f"columns found: {found}{hint}; rename the columns"
    )


def _conversation(turns: tuple[Message, ...], row: dict[str, Any], used: tuple[str, ...], where: str) -> Conversation:
    if not any(turn.role == "assistant" for turn in turns):
        roles = ", ".join(turn.role for turn in turns)
        raise errors.UserError(
            f"{where}: no assistant turn to learn from (roles: {roles}); add the answer or remove the row"
        )
    return Conversation(messages=turns, tools=offered(row, where), where=where, extra=rest(row, used))


def _completion(row: dict[str, Any], where: str) -> Record:
    prompt, completion = row["prompt"], row["completion"]
    used = ("prompt", "completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise errors.UserError(f"{where}: empty answer: 'completion' holds no text; fill it or remove the row")
        return Completion(prompt=prompt, completion=completion, where=where, extra=rest(row, used))
    for name, value in (("prompt", prompt), ("completion", completion)):
        if not isinstance(value, (str, list, tuple)):
            raise errors.UserError(f"{where}: {name!r} must be text or a list of messages, not {type(value).__name__}")
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    context = tuple(dataclasses.replace(turn, weight=0) for turn in messages(asked, where)) if asked else ()
    answered = messages(answer, where)
    if not any(turn.role == "assistant" for turn in answered):
        raise errors.UserError(f"{where}: no assistant turn in 'completion'; add the answer or remove the row")
    return _conversation(context + answered, row, (*used, "tools"), where)


def _message(item: Any, index: int, where: str) -> Message:
    at = f"{where}: message {index + 1}"
    if not isinstance(item, dict):
        raise errors.UserError(f"{at} must be an object with role and content, not {type(item).__name__}")
    item = {key: value for key, value in item.items() if value is not None}
    if "role" not in item:
        raise errors.UserError(f"{at} has no 'role'{files.close_to('role', list(item))}; keys found: {', '.join(item)}")
    role = item["role"]
    if role not in ROLES:
        hint = files.close_to(str(role), list(ROLES))
        raise errors.UserError(f"{at}: unknown role {role!r}{hint}; roles: {', '.join(ROLES)}")
    weight = item.get("weight", 1)
    if weight not in (0, 1) or isinstance(weight, str):
        raise errors.UserError(f"{at}: weight {weight!r} must be 0 (context only) or 1 (trained on)")
    if "weight" in item and role != "assistant":
        raise errors.UserError(f"{at}: 'weight' is for assistant messages, this one is of the {role}; remove it")
    calls = tools.calls(item["tool_calls"], at) if item.get("tool_calls") else ()
    if not calls and item.get("function_call"):
        calls = tools.calls([{"type": "function", "function": item["function_call"]}], at)
    if calls and role != "assistant":
        raise errors.UserError(f"{at}: 'tool_calls' in a message of the {role}; only the assistant calls tools")
    if "content" not in item and not calls:
        raise errors.UserError(
            f"{at} has no 'content'{files.close_to('content', list(item))}; keys found: {', '.join(item)}"
        )
    content = text(item.get("content", ""), f"message {index + 1}: content", where)
    if role == "assistant" and not content.strip() and not calls:
        raise errors.UserError(f"{at}: empty answer of the assistant; fill it or remove the row")
    reasoning = next((item[key] for key in ("reasoning_content", "thinking", "reasoning") if key in item), None)
    return Message(
        role=role,
        content=content,
        weight=int(weight),
        tool_calls=calls,
        tool_call_id=_optional(item, "tool_call_id", at),
        name=_optional(item, "name", at),
        reasoning_content=None if reasoning is None else text(reasoning, f"message {index + 1}: reasoning", where),
    )


def _optional(item: dict[str, Any], key: str, at: str) -> str | None:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise errors.UserError(f"{at}: {key!r} must be text, not {type(value).__name__}")
    return value


def _part(part: Any, name: str, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise errors.UserError(f"{where}: {name} has a part of type {kind!r}; only text parts can be trained on")
