"""Is this row of a data file fit to be trained on? Accept, edit, reject or skip it, with a comment.

The payload is {"line": n, "row": {...}}, the setting {"of_preferences": bool}. A row that is edited keeps its form:
the page sends texts by their place in it ("/messages/1/content"), or the row as JSON text, and the row must load as
training loads it. Numbers never pass through the browser, which would round the large ones and reads no NaN.
"""

from collections.abc import Iterator, Mapping
import json
import math
from typing import Any

from ftjax import errors
from ftjax.data import preferences, records
from ftjax.people import store as people_store
from ftjax.people.kinds import rating

DECISIONS = ("accept", "edit", "reject", "skip")
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant"}
_ANSWERS = {
    *("assistant", "completion", "output", "answer", "text", "response", "chosen", "rejected", "preferred_output"),
    *("non_preferred_output", "completions", "answer_matching_behavior", "answer_not_matching_behavior"),
}
_SIDES = {
    "chosen": "better", "rejected": "worse", "preferred_output": "better", "non_preferred_output": "worse",
    "answer_matching_behavior": "better", "answer_not_matching_behavior": "worse",
}  # fmt: skip
_LISTS = {"output": ("better", "worse")}  # Alpaca's pair
_DEEPEST = 12  # nested lists and objects; what is deeper is one JSON text
_DEEPEST_EDIT = 500  # Python reads 900 and more, by where it stands; what was kept must be shown again


def shown(
    item: people_store.Item, question: people_store.Question, rater: str, mine: dict[str, Any] | None
) -> dict[str, Any]:
    """Returns the row in its texts, also as the rater has edited it before."""
    del rater
    row = item.payload["row"]
    made = {"line": item.payload["line"], **_view(row, question), "edited": None}
    if mine is not None and "row" in mine:
        made["edited"] = _view(mine["row"], question)
    return made


def check(
    item: people_store.Item, question: people_store.Question, rater: str, answer: dict[str, Any]
) -> dict[str, Any]:
    """Returns {"decision", "comment"} and of an edit the whole "row"."""
    del rater
    where = f"line {item.payload['line']}"
    comment = rating.comment(answer, ("comment", "decision", "json", "texts"), where)
    decision = answer.get("decision")
    if decision not in DECISIONS:
        raise errors.UserError(f"{where}: decision {decision!r} must be one of {', '.join(DECISIONS)}")
    made: dict[str, Any] = {"decision": decision, "comment": comment}
    if decision == "accept":
        refusal = refused(item.payload["row"], question)
        if refusal:
            raise errors.UserError(f"{where} cannot be trained on as it is ({refusal}); edit or reject it")
    if decision == "edit":
        made["row"] = _edited(item.payload["row"], answer, where)
        refusal = refused(made["row"], question)
        if refusal:
            raise errors.UserError(f"{where}: as edited it cannot be trained on ({refusal}); mend it, or reject it")
        if _same(made["row"], item.payload["row"]):
            raise errors.UserError(f"{where}: nothing is changed; accept it, or change something")
    return made


def counts(answer: Mapping[str, Any]) -> bool:
    """Tells whether the reviewer decided."""
    return answer["decision"] != "skip"


def labels(answer: Mapping[str, Any]) -> dict[str, str | float]:
    """Returns the decision."""
    return {"decision": answer["decision"]}


def metrics(question: people_store.Question) -> dict[str, str]:
    """Returns that decisions have no order."""
    del question
    return {"decision": "nominal"}


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tells whether the decision is the same, and of edits the row."""
    return one["decision"] == other["decision"] and _same(one.get("row"), other.get("row"))


def told(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the answer without the row of an edit, which `shown` has in its texts."""
    return {name: value for name, value in answer.items() if name != "row"}


def line(item: people_store.Item) -> str:
    """Returns the last texts of the row, which tell most of it."""
    texts = [part["text"] for part in _parts(item.payload["row"], (), "", "") if part["at"] is not None]
    return " → ".join(rating.brief(text) for text in texts[-2:])


def refused(row: Any, question: people_store.Question) -> str | None:
    """Returns why training refuses a row, or None."""
    read = preferences.from_row if question.setting["of_preferences"] else records.from_row
    if not isinstance(row, dict):
        return "a row is an object with columns"
    try:
        read(row, "")
    except errors.UserError as refusal:
        return str(refusal).lstrip(": ")
    return None


def _view(row: Any, question: people_store.Question) -> dict[str, Any]:
    text = json.dumps(row, indent=2, ensure_ascii=False)
    return {"parts": list(_parts(row, (), "", "")), "json": text, "refusal": refused(row, question)}


def _edited(base: Any, answer: Mapping[str, Any], where: str) -> Any:
    texts, written = answer.get("texts"), answer.get("json")
    if (texts is None) == (written is None):
        raise errors.UserError(f"{where}: an edit has either 'texts' or 'json'")
    if written is not None:
        try:
            made = json.loads(written, parse_constant=_finite, parse_float=_finite)
        except (TypeError, ValueError, RecursionError) as bad:
            raise errors.UserError(
                f"{where}: is no JSON ({bad}); mend it, or press Escape to leave it as it was"
            ) from None
        if _depth(made) > _DEEPEST_EDIT:
            raise errors.UserError(f"{where}: is nested {_depth(made)} deep; make that at most {_DEEPEST_EDIT}")
        return made
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise errors.UserError(f"{where}: 'texts' has a text for each place")
    made = json.loads(json.dumps(base))
    places = {part["at"] for part in _parts(base, (), "", "") if part["at"] is not None}
    for at, text in texts.items():
        if at not in places:
            raise errors.UserError(f"{where}: there is no text at {at!r}; reload the page")
        *way, last = (_unescaped(name) for name in at.split("/")[1:])
        inner = made
        for name in way:
            inner = inner[int(name) if isinstance(inner, list) else name]
        inner[int(last) if isinstance(inner, list) else last] = text
    return made


def _finite(text: str) -> float:
    """Returns the number of a text; a ValueError says that it is none that JSON and other readers know."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number that it knows; write null or a number, or change the texts in place")
    return value


def _depth(value: Any) -> int:
    """Returns how many lists and objects lie in one another."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _same(one: Any, other: Any) -> bool:
    """Tells whether rows are the same as JSON: NaN is NaN, and 1 is not true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _parts(value: Any, way: tuple[str, ...], label: str, side: str) -> Iterator[dict[str, Any]]:
    """Yields what a row says: its texts with their places, and other values, which are shown only."""
    if isinstance(value, str) and way:
        shown_as = "answer" if label in _ANSWERS else "user" if label == "user" else "other"
        at = "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in way)
        yield {"label": label, "kind": shown_as, "side": side, "at": at, "text": value}
    elif isinstance(value, dict) and value and len(way) < _DEEPEST:
        spoken = next((name for name in ("role", "from") if isinstance(value.get(name), str)), "")
        said = next((name for name in ("content", "value") if name in value), "")
        for name, inner in value.items():
            if spoken and name == said:
                who = str(value[spoken])
                yield from _parts(inner, (*way, name), _ROLES.get(who, who), side)
            elif not (name == spoken and said):
                yield from _parts(inner, (*way, name), name, side or _SIDES.get(name, ""))
    elif isinstance(value, list) and value and len(way) < _DEEPEST:
        sides = _LISTS.get(label, ()) if len(way) == 1 else ()
        for number, inner in enumerate(value):
            own = side or (sides[number] if number < len(sides) else str(number + 1) if label == "completions" else "")
            yield from _parts(inner, (*way, str(number)), label, own)
    elif value is not None:
        yield {"label": label, "kind": "fact", "side": side, "at": None, "text": json.dumps(value)}


def _unescaped(name: str) -> str:
    return name.replace("~1", "/").replace("~0", "~")
