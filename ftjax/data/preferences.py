"""What a row of preferences may be: a prompt, its completions, and which of them is better.

Accepted columns, first match wins: `input`, `preferred_output`, `non_preferred_output` (OpenAI); `question` with
`answer_matching_behavior` and `answer_not_matching_behavior` (Anthropic's model-written evaluations); `completions`
with `ranks` or `scores`; `chosen` and `rejected` beside `prompt` (TRL, UltraFeedback), `conversations` (ShareGPT) or
`instruction` (Alpaca), or alone (TRL's implicit prompt, HH transcripts); `instruction` and `output: [better, worse]`;
one completion with `label`, `kto_tag` or `score`. docs/formats.md has an example of each. The forms that a prompt may
have are in `prompt_forms`. To add a format, add a branch in `from_row` and a function that calls `_made`.
"""

from collections.abc import Collection, Sequence
import dataclasses
import itertools
import json
import math
from typing import Any

from ftjax import errors
from ftjax.data import files, prompt_forms, records
from ftjax.data.prompt_forms import Turns
from ftjax.data.sources import csv_file

# UltraFeedback's columns, and Argilla's.
SCORES = tuple(
    (pattern.format("chosen"), pattern.format("rejected"))
    for pattern in ("score_{}", "{}_score", "{}-rating", "{}_rating")
)
LABELS = ("label", "kto_tag", "score")
OUTPUTS = ("preferred_output", "non_preferred_output")
BEHAVIOUR = ("answer_matching_behavior", "answer_not_matching_behavior")
COLUMNS = (
    *("prompt", "chosen", "rejected", "completion", "completions", "label", "ranks", "scores", "score", "margin"),
    *(*OUTPUTS, "input", "conversations", "messages", "instruction", "output", "kto_tag"),
)
_CELLS = {"label", "kto_tag", "score", "margin", "ranks", "scores", *itertools.chain(*SCORES)}  # numbers, not text


@dataclasses.dataclass(frozen=True)
class Preference:
    """A prompt with its completions, all text or all messages, and pairs (better, worse) of their indices.

    `margins` has one number a pair, 0 where none is given; `labels` one a completion: 1 desirable, 0 undesirable, any
    number where the row has scores, NaN where nothing is said.
    """

    prompt: str | Turns
    completions: tuple[str, ...] | tuple[Turns, ...]
    pairs: tuple[tuple[int, int], ...]
    margins: tuple[float, ...]
    labels: tuple[float, ...]
    tools: tuple[dict[str, Any], ...]
    where: str
    extra: dict[str, Any]


def read(path: str) -> list[Preference]:
    """Returns the preferences of a file, folder or "world:" task; a UserError names the line of a bad row."""
    path = str(path)
    read_cells = typed if csv_file.accepts(path) else lambda row: row
    return [from_row(read_cells(row), where) for where, row in records.source(path).read(path)]


def rows_at(path: str, places: Collection[str]) -> dict[str, dict[str, Any]]:
    """Returns the rows that stand at these places, as `from_row` takes them."""
    found = records.rows_at(path, places)
    return {where: typed(row) for where, row in found.items()} if csv_file.accepts(path) else found


def recognised(path: str) -> bool:
    """Tells by its first row whether a data file holds preferences rather than answers to learn from."""
    _, row = next(records.source(path).read(path))
    return recognises(row)


def recognises(row: dict[str, Any]) -> bool:
    """Tells by its columns whether a row holds preferences rather than one answer to learn from."""
    found = {key for key, value in row.items() if value is not None}
    if found & {"chosen", "rejected", *OUTPUTS, *BEHAVIOUR, "completions", "kto_tag"}:
        return True
    return {"prompt", "completion", "label"} <= found or isinstance(row.get("output"), (list, tuple))


def from_row(row: dict[str, Any], where: str) -> Preference:
    """Returns the preference that a row holds; `where` ("file:line") begins every error message."""
    row = {key: value for key, value in row.items() if value is not None}
    if any(name in row for name in OUTPUTS):
        return _openai(row, where)
    if "question" in row and all(name in row for name in BEHAVIOUR):
        chosen, rejected = (
            [{"role": "assistant", "content": records.text(row[name], name, where).strip()}] for name in BEHAVIOUR
        )
        turns = {"prompt": [{"role": "user", "content": row["question"]}], "chosen": chosen, "rejected": rejected}
        return _pair({**records.rest(row, ("question", *BEHAVIOUR)), **turns}, where)
    if "completions" in row:
        return _ranked(row, where)
    if "chosen" in row and "rejected" in row:
        return _pair(row, where)
    if "instruction" in row and isinstance(row.get("output"), (list, tuple)):
        if len(row["output"]) != 2:
            raise errors.UserError(
                f"{where}: 'output' must hold two texts, the better one first, not {len(row['output'])}"
            )
        chosen, rejected = row["output"]
        return _pair({**records.rest(row, ("output",)), "chosen": chosen, "rejected": rejected}, where)
    if "chosen" not in row and "rejected" not in row and any(name in row for name in LABELS):
        return _labelled(row, where)
    raise errors.UserError(f"{where}: {_missing(row)}")


def _openai(row: dict[str, Any], where: str) -> Preference:
    lacking = next((name for name in ("input", *OUTPUTS) if name not in row), None)
    if lacking is not None:
        raise errors.UserError(f"{where}: {_without(row, lacking)}")
    given = records.unpacked(row["input"], "input", where)
    if not isinstance(given, dict) or "messages" not in given:
        raise errors.UserError(f"{where}: 'input' must be an object with 'messages', as OpenAI's preference lines have")
    prompt = prompt_forms.turns(given["messages"], f"{where}: 'input'")
    sides = [prompt_forms.turns(records.unpacked(row[name], name, where), f"{where}: {name!r}") for name in OUTPUTS]
    prompt, *sides = prompt_forms.beside(prompt, sides, OUTPUTS, where)
    return _made(
        prompt, sides, OUTPUTS, {**row, "tools": given.get("tools")}, ("input", *OUTPUTS, "margin"), where,
        pairs=[(0, 1)], margins=[_margin(row, where)], labels=[1.0, 0.0],
    )  # fmt: skip


def _pair(row: dict[str, Any], where: str) -> Preference:
    names = ("chosen", "rejected")
    sides = [prompt_forms.side(row[name], f"{where}: {name!r}") for name in names]
    if isinstance(sides[0], str) != isinstance(sides[1], str):
        kinds = ["text" if isinstance(side, str) else "messages" for side in sides]
        raise errors.UserError(f"{where}: 'chosen' is {kinds[0]} and 'rejected' is {kinds[1]}; give both in one form")
    prompt, used = prompt_forms.context(row, where, alone=not isinstance(row["chosen"], dict))
    if prompt is None:
        prompt, *sides = prompt_forms.implicit(sides, names, where)
    else:
        prompt, *sides = prompt_forms.beside(prompt, sides, names, where)
    return _made(
        prompt, sides, names, row, (*names, *used, "margin"), where,
        pairs=[(0, 1)], margins=[_margin(row, where)], labels=[1.0, 0.0],
    )  # fmt: skip


def _ranked(row: dict[str, Any], where: str) -> Preference:
    known = [name for name in ("ranks", "scores") if name in row]
    if len(known) != 1:
        what = "one of 'ranks' (1 is the best) and 'scores' (the highest is the best)"
        hint = files.close_to("ranks", list(row)) or files.close_to("scores", list(row))
        raise errors.UserError(
            f"{where}: 'completions' needs {what}, not {'both' if known else 'neither'}{'' if known else hint}; "
            f"columns found: {_names(row)}"
        )
    values = records.unpacked(row[known[0]], known[0], where)
    completions = records.unpacked(row["completions"], "completions", where)
    for name, value in (("completions", completions), (known[0], values)):
        if not isinstance(value, (list, tuple)):
            raise errors.UserError(f"{where}: {name!r} must be a list, not {type(value).__name__}")
    if len(values) != len(completions) or not completions:
        raise errors.UserError(
            f"{where}: {len(completions)} completions, but {len(values)} {known[0]}; give one for each, at least one"
        )
    numbers = [_number(value, f"{known[0]}[{n}]", where) for n, value in enumerate(values)]
    if known[0] == "ranks" and not all(number >= 1 and number == int(number) for number in numbers):
        raise errors.UserError(f"{where}: 'ranks' must be whole numbers from 1 (the best), not {list(values)}")
    names = [f"completions[{n}]" for n in range(len(completions))]
    sides = [prompt_forms.side(value, f"{where}: {n}") for n, value in zip(names, completions, strict=True)]
    if len({isinstance(side, str) for side in sides}) > 1:
        raise errors.UserError(f"{where}: some of 'completions' are text and some are messages; give all in one form")
    prompt, used = prompt_forms.context(row, where, alone=False)
    if prompt is None:
        raise errors.UserError(f"{where}: {_without(row, 'prompt')}")
    prompt, *sides = prompt_forms.beside(prompt, sides, names, where)
    better = (lambda a, b: a < b) if known[0] == "ranks" else (lambda a, b: a > b)
    every = itertools.permutations(range(len(numbers)), 2)
    pairs = [(a, b) for a, b in every if better(numbers[a], numbers[b])]
    labels = numbers if known[0] == "scores" else [math.nan] * len(numbers)
    return _made(
        prompt, sides, names, row, ("completions", *known, *used), where,
        pairs=pairs, margins=[0.0] * len(pairs), labels=labels,
    )  # fmt: skip


def _labelled(row: dict[str, Any], where: str) -> Preference:
    known = [name for name in LABELS if name in row]
    if len(known) > 1:
        raise errors.UserError(f"{where}: columns {known[0]!r} and {known[1]!r} both say how good it is; keep one")
    value, name = row[known[0]], known[0]
    if name == "score":
        label = _number(value, name, where)
    elif value in (0, 1) and isinstance(value, int):
        label = float(value)
    else:
        raise errors.UserError(
            f"{where}: {name} {value!r} must be true or false (or 1 or 0); any other number belongs into 'score'"
        )
    if "completion" in row or ("instruction" in row and "output" in row):
        column = "completion" if "completion" in row else "output"
        side = prompt_forms.side(row[column], f"{where}: {column!r}")
        prompt, used = prompt_forms.context(row, where, alone=False)
        if prompt is None:
            raise errors.UserError(f"{where}: {_without(row, 'prompt')}")
        prompt, side = prompt_forms.beside(prompt, [side], [column], where)
        used = (*used, column)
    else:
        whole, used = prompt_forms.context(row, where, alone=False)
        if whole is None or isinstance(whole, str):
            raise errors.UserError(f"{where}: {_without(row, 'completion')}")
        asked = max((n for n, turn in enumerate(whole) if turn.role != "assistant"), default=-1)
        prompt, side, column = whole[: asked + 1], whole[asked + 1 :], "completion"
    return _made(prompt, [side], [column], row, (name, *used), where, pairs=[], margins=[], labels=[label])


def _made(
    prompt: str | Turns,
    sides: Sequence[str | Turns],
    names: Sequence[str],
    row: dict[str, Any],
    used: tuple[str, ...],
    where: str,
    *,
    pairs: Sequence[tuple[int, int]],
    margins: Sequence[float],
    labels: Sequence[float],
) -> Preference:
    """Returns the record, of which prompt and completions are checked here; `names` are their columns."""
    prompt_forms.check(prompt, sides, names, where)
    if not isinstance(prompt, str):
        prompt = tuple(dataclasses.replace(turn, weight=0) for turn in prompt)
    return Preference(
        prompt=prompt,
        completions=tuple(sides),  # type: ignore[arg-type]  # all of one form, as `prompt_forms` leaves them
        pairs=tuple(pairs),
        margins=tuple(margins),
        labels=tuple(labels),
        tools=records.offered(row, where),
        where=where,
        extra=records.rest(row, (*used, "tools")),
    )


def _margin(row: dict[str, Any], where: str) -> float:
    """Returns by how much the chosen one is better: `margin`, or the difference of two scores, or 0."""
    if "margin" in row:
        margin = _number(row["margin"], "margin", where)
        if margin < 0:
            raise errors.UserError(f"{where}: margin {margin} must be at least 0; are chosen and rejected swapped?")
        return margin
    for pair in SCORES:
        have = [name for name in pair if name in row]
        if len(have) == 1:
            lack = next(name for name in pair if name not in row)
            raise errors.UserError(f"{where}: {_without(row, lack)}")
        if have:
            high, low = (_number(row[name], name, where) for name in pair)
            if high < low:
                raise errors.UserError(
                    f"{where}: {pair[0]} {high} is below {pair[1]} {low}; are chosen and rejected swapped?"
                )
            return high - low
    return 0.0


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise errors.UserError(f"{where}: {name} {value!r} must be a finite number")
    return float(value)


def typed(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the row of a CSV, whose cells are all text, with numbers, truth values and messages read from them."""
    found = dict(row)
    for key, value in row.items():
        number = key in _CELLS
        if number and not value.strip():
            found[key] = None
        elif number or value.lstrip().startswith(("[{", "{")):
            try:
                found[key] = json.loads(value.lower() if number else value)
            except json.JSONDecodeError:
                continue  # text that looks like JSON; a number that is none is refused where it is used
    return found


def _names(row: dict[str, Any]) -> str:
    return ", ".join(repr(key) for key in row) or "none"


def _without(row: dict[str, Any], lacking: str) -> str:
    others = [key for key in row if key not in {*COLUMNS, *_CELLS}]
    return f"no column {lacking!r}{files.close_to(lacking, others)}; columns found: {_names(row)}"


def _missing(row: dict[str, Any]) -> str:
    halves = {"chosen": "rejected", "rejected": "chosen", "ranks": "completions", "scores": "completions"}
    halves |= {"completion": "label"}
    for have, lack in halves.items():
        if have in row and lack not in row:
            more = " (or 'score'); rows without one are for supervised training" if lack == "label" else ""
            return f"{_without(row, lack)}{more}"
    hints = [(key, files.close_to(key, list(COLUMNS))) for key in row if key not in COLUMNS]
    hint = next((f"; {key!r}:{close.rstrip(')').replace(' (', ' ')}" for key, close in hints if close), "")
    return (
        "no 'chosen' and 'rejected' (nor 'completions' with 'ranks' or 'scores', 'completion' with 'label', or "
        f"OpenAI's 'preferred_output'); columns found: {_names(row)}{hint}; rename the columns"
    )
