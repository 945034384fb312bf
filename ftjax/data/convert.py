"""Rows of one format in another, without loss or not at all: what is written is read again and must be the same record.

What no record has, keys inside of messages that nothing reads, is lost only where it is named to be dropped.

To add a format, add a function from a record to a row and name it in `FORMATS`.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import json
from typing import Any

from ftjax import errors
from ftjax.data import files, preferences, records, rows, unread

Record = records.Record | preferences.Preference
_SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}


class LossyError(ValueError):
    """What a format cannot hold; completes the sentence 'format X cannot hold ...'."""


def convert(data: rows.DataFile, name: str, *, drop: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Returns the rows of a file in a format; a UserError names the first row that it cannot hold, and why.

    `drop` names keys inside of messages, turns, tool calls and OpenAI's `input` that may be left behind.
    """
    if name not in FORMATS:
        hint = files.close_to(name, list(FORMATS))
        raise errors.UserError(f"unknown format {name!r}{hint}; formats: {', '.join(FORMATS)}")
    found = []
    for row in data.rows:
        if row.record is None:
            raise errors.UserError(f"{row.refusal} (data.py check finds all such rows)")
        where = f"{data.path}:{row.line}"
        for key, what in unread.keys(row.value, row.record):
            if key not in drop:
                raise errors.UserError(
                    f"{where}: the key {key!r} of {what} would be lost, for nothing reads it; move it into a column of "
                    f"the row, or leave it behind by --drop {key}"
                )
        try:
            made = _written(row.record, name)
        except LossyError as lost:
            raise errors.UserError(f"{where}: format {name!r} cannot hold {lost}; choose another format") from None
        found.append(made)
        try:
            same = _same(made, row.record, where)
        except errors.UserError as bad:
            raise errors.UserError(f"{where}: {bad}") from None
        if not same:
            raise errors.UserError(
                f"{where}: format {name!r} would change what this row trains; choose another format (columns: "
                f"{', '.join(map(repr, row.value))})"
            )
        if preferences.recognises(made) != data.of_preferences:
            kind = "an answer to learn from" if data.of_preferences else "a preference"
            raise errors.UserError(
                f"{where}: format {name!r} would make this row {kind}, by its columns "
                f"{', '.join(map(repr, made))}; rename the column that says so, or choose another format"
            )
    return found


def _written(record: Record, name: str) -> dict[str, Any]:
    made = FORMATS[name](record)
    taken = [key for key in record.extra if key in made]
    if taken:
        raise LossyError(f"the column {taken[0]!r} beside its own of that name")
    return {**made, **record.extra}


def _same(made: dict[str, Any], record: Record, where: str) -> bool:
    """Tells whether a row reads as the record, after a way through JSON."""
    read = preferences.from_row if isinstance(record, preferences.Preference) else records.from_row
    told = json.loads(json.dumps(made, default=files.as_text))
    try:
        again = read(told, where)
    except errors.UserError:
        return False
    plain = json.loads(json.dumps(record.extra, default=files.as_text))
    return repr(_comparable(again)) == repr(_comparable(dataclasses.replace(record, extra=plain)))


def _comparable(record: Record) -> Record:
    """Returns a record without its place, and without weights of turns that are never trained on."""
    record = dataclasses.replace(record, where="")
    if not isinstance(record, records.Conversation):
        return record
    turns = (turn if turn.role == "assistant" else dataclasses.replace(turn, weight=1) for turn in record.messages)
    return dataclasses.replace(record, messages=tuple(turns))


def _chat(record: Record) -> records.Conversation:
    if isinstance(record, records.Conversation):
        return record
    if isinstance(record, preferences.Preference):
        raise LossyError("preferences, of which one completion is better")
    raise LossyError("plain text, which is trained on without a chat template")


def _messages(record: Record) -> dict[str, Any]:
    chat = _chat(record)
    return _with_tools({"messages": [_message(turn, as_text=False) for turn in chat.messages]}, record)


def _openai(record: Record) -> dict[str, Any]:
    chat = _chat(record)
    if any(turn.reasoning_content is not None for turn in chat.messages):
        raise LossyError("reasoning, for which OpenAI's files have no key")
    return _with_tools({"messages": [_message(turn, as_text=True) for turn in chat.messages]}, record)


def _sharegpt(record: Record) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for turn in _chat(record).messages:
        if turn.name or turn.tool_call_id or turn.reasoning_content is not None:
            raise LossyError("names, ids of tool calls and reasoning")
        weight = {} if turn.weight else {"weight": 0}
        if turn.tool_calls:
            if turn.content:
                raise LossyError("text and tool calls in one turn")
            calls = [call["function"] for call in turn.tool_calls]
            said = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
            turns.append({"from": "function_call", "value": said, **weight})
        elif turn.role not in _SHAREGPT:
            raise LossyError(f"the role {turn.role!r}")
        else:
            turns.append({"from": _SHAREGPT[turn.role], "value": turn.content, **weight})
    return _with_tools({"conversations": turns}, record)


def _alpaca(record: Record) -> dict[str, Any]:
    chat = _chat(record)
    turns = [(turn.role, turn.content) for turn in chat.messages]
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else None
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise LossyError("turns that do not alternate between user and assistant")
    *history, (_, asked), (_, answer) = turns
    made: dict[str, Any] = {"instruction": asked, "output": answer}
    if system is not None:
        made["system"] = system
    if history:
        made["history"] = [[history[n][1], history[n + 1][1]] for n in range(0, len(history), 2)]
    return _with_tools(made, record)


def _question(record: Record) -> dict[str, Any]:
    turns = _chat(record).messages
    if [turn.role for turn in turns] != ["user", "assistant"]:
        raise LossyError("more than one question and its answer")
    return _with_tools({"question": turns[0].content, "answer": turns[1].content}, record)


def _completion(record: Record) -> dict[str, Any]:
    if isinstance(record, records.Completion):
        return {"prompt": record.prompt, "completion": record.completion}
    turns = _chat(record).messages
    at = max((n for n, turn in enumerate(turns) if turn.role != "assistant"), default=-1) + 1
    prompt, answer = ([_message(turn, as_text=False) for turn in part] for part in (turns[:at], turns[at:]))
    return _with_tools({"prompt": [_unweighted(turn) for turn in prompt], "completion": answer}, record)


def _text(record: Record) -> dict[str, Any]:
    if not isinstance(record, records.Text):
        raise LossyError("a prompt, which is not trained on")
    return {"text": record.text}


def _trl(record: Record) -> dict[str, Any]:
    prompt, sides = _pair(record)
    made = {"prompt": _side(prompt), "chosen": _side(sides[0]), "rejected": _side(sides[1])}
    return _with_tools(_with_margin(made, record), record)


def _openai_pairs(record: Record) -> dict[str, Any]:
    prompt, sides = _pair(record)
    if isinstance(prompt, str):
        raise LossyError("plain text, which is trained on without a chat template")
    given = _with_tools({"messages": _side(prompt)}, record)
    made = {"input": given, "preferred_output": _side(sides[0]), "non_preferred_output": _side(sides[1])}
    return _with_margin(made, record)


def _ranked(record: Record) -> dict[str, Any]:
    if not isinstance(record, preferences.Preference):
        raise LossyError("rows without a preference")
    beaten = [sum(worse == n for _, worse in record.pairs) for n in range(len(record.completions))]
    order = sorted(set(beaten))
    made: dict[str, Any] = {"prompt": _side(record.prompt), "completions": [_side(one) for one in record.completions]}
    if all(label == label for label in record.labels):
        made["scores"] = list(record.labels)
    else:
        made["ranks"] = [order.index(count) + 1 for count in beaten]
    return _with_tools(made, record)


def _labelled(record: Record) -> dict[str, Any]:
    if not isinstance(record, preferences.Preference) or record.pairs or len(record.completions) != 1:
        raise LossyError("pairs, of which neither completion need be good or bad")
    label = record.labels[0]
    how = {"label": bool(label)} if label in (0.0, 1.0) else {"score": label}
    return _with_tools({"prompt": _side(record.prompt), "completion": _side(record.completions[0]), **how}, record)


def _pair(record: Record) -> tuple[str | Sequence[records.Message], list[str | Sequence[records.Message]]]:
    if not isinstance(record, preferences.Preference):
        raise LossyError("rows without a preference")
    if record.pairs != ((0, 1),) or len(record.completions) != 2:
        raise LossyError(f"{len(record.completions)} completions and {len(record.pairs)} pairs")
    return record.prompt, list(record.completions)


def _side(value: str | Iterable[records.Message]) -> Any:
    return value if isinstance(value, str) else [_unweighted(_message(turn, as_text=False)) for turn in value]


def _unweighted(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != "weight"}


def _message(turn: records.Message, *, as_text: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.role == "assistant" and not turn.weight:
        made["weight"] = 0
    if turn.tool_calls:
        made["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
            if as_text
            else call
            for call in turn.tool_calls
        ]
    for key in ("tool_call_id", "name", "reasoning_content"):
        if getattr(turn, key) is not None:
            made[key] = getattr(turn, key)
    return made


def _with_tools(made: dict[str, Any], record: Record) -> dict[str, Any]:
    offered = getattr(record, "tools", ())
    return {**made, "tools": list(offered)} if offered else made


def _with_margin(made: dict[str, Any], record: Record) -> dict[str, Any]:
    assert isinstance(record, preferences.Preference)
    return {**made, "margin": record.margins[0]} if record.margins[0] else made


FORMATS: dict[str, Callable[[Record], dict[str, Any]]] = {
    "messages": _messages,
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "question": _question,
    "completion": _completion,
    "text": _text,
    "trl": _trl,
    "openai-pairs": _openai_pairs,
    "ranked": _ranked,
    "labelled": _labelled,
}
