"""A data file as `checks/` see it: every row as it was read, what training makes of it, and its texts.

Training stops at the first bad row; here each row is tried for itself, so one broken line does not hide the next.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import re
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import files, preferences, records, similarity, tokens_of_rows, topics
from ftjax.data.sources import csv_file

_FIRST = 100  # rows that say whether a file holds preferences: one broken row must not decide it
_NUMBER = re.compile(r":(\d+)(?: \((?:data\[(\d+)\]|row (\d+))\))?$")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row: the line that it begins in (or its number), its value as read, and the record or why there is none."""

    line: int
    value: Any
    record: records.Record | preferences.Preference | None
    refusal: errors.UserError | None


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The texts of a row that training takes.

    `asked` is the last message of the user before the last answer, `context` all that comes before it, `opening` all
    that comes before the first one, and `answers` what the model is to write: of preferences, the completions that no
    other one beats.
    """

    line: int
    system: str
    asked: str
    opening: str
    context: str
    answers: tuple[str, ...]
    turns: int

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.answers[-1]


class Found(NamedTuple):
    """What a rule found: the line (None: the file as a whole), and a sentence with the value."""

    line: int | None
    message: str


class Pair(NamedTuple):
    """A preference between two texts."""

    line: int
    context: str
    better: str
    worse: str


@dataclasses.dataclass
class DataFile:
    """A data file, read. `tokens` and `limit` are there with a model, `against` holds evaluation files.

    `scored.attach` gives it `scores` (of all rows) and `vectors` of the rows that training takes, NaN where there is
    none; or, where scores beside the file are not used, `unscored` says why.
    """

    path: str
    rows: list[Row]
    of_preferences: bool
    tokens: tokens_of_rows.TokenCounts | None = None
    limit: int | None = None
    against: Sequence["DataFile"] = ()
    scores: Any = None  # scores.Scores, whose module looks at files by this one
    vectors: np.ndarray | None = None  # float32 [readable, D]
    unscored: str | None = None

    @functools.cached_property
    def readable(self) -> list[Row]:
        """The rows that training takes."""
        return [row for row in self.rows if row.record is not None]

    @functools.cached_property
    def samples(self) -> list[Sample]:
        """The texts of the rows that training takes."""
        return [_sample(row) for row in self.readable]

    @functools.cached_property
    def keys(self) -> list[bytes]:
        """What tells the rows that training takes apart: a hash of all their texts and of what is said of them."""
        return [_key(row.record) for row in self.readable]

    @functools.cached_property
    def texts(self) -> list[str]:
        """Prompt and answers of each row that training takes, in one text."""
        return ["\n".join((one.context, *one.answers)) if one.context else one.answer for one in self.samples]

    @functools.cached_property
    def near(self) -> list[similarity.Near]:
        """Rows that are nearly another, earlier one."""
        return similarity.near(self.texts)

    @functools.cached_property
    def near_against(self) -> list[list[similarity.Near]]:
        """Of each file of `against`, rows that are nearly one of its own; two rules look at them."""
        return [similarity.nearest(self.texts, other.texts) for other in self.against]

    @functools.cached_property
    def topics(self) -> topics.Topics | None:
        """What the rows are about: clusters and a map; None where there are too few to tell."""
        return topics.find(self.asked, self.vectors)

    @functools.cached_property
    def asked(self) -> list[str]:
        """What tells what a row is about: its last question, or its text."""
        return [one.asked or one.answer for one in self.samples]

    @functools.cached_property
    def pairs(self) -> list[Pair]:
        """The pairs of a file of preferences; none where it holds answers to learn from."""
        found = []
        for row in self.readable:
            if isinstance(row.record, preferences.Preference):
                texts = [_spoken(one) for one in row.record.completions]
                context = _joined(row.record.prompt)
                found += [Pair(row.line, context, texts[a], texts[b]) for a, b in row.record.pairs]
        return found


def read(
    path: str, *, columns: Mapping[str, str] | None = None, progress: Callable[[], None] = lambda: None
) -> DataFile:
    """Returns the file; a UserError says why nothing of it can be read. `columns` renames: {"completion": "reply"}."""
    values = []
    for where, value in attempts(path):
        if isinstance(value, dict) and columns:
            value = renamed(value, columns)
        values.append((number(where), value))
        progress()
    return of_values(path, values)


def of_values(path: str, values: Sequence[tuple[int, Any]]) -> DataFile:
    """Returns the file of (line, row or what is wrong with it)."""
    first = [value for _, value in values if isinstance(value, dict)][:_FIRST]
    of_preferences = sum(map(preferences.recognises, first)) * 2 > len(first)
    cells = preferences.typed if of_preferences and csv_file.accepts(path) else lambda row: row
    return DataFile(path, [_row(path, line, value, of_preferences, cells) for line, value in values], of_preferences)


def attempts(path: str) -> Iterator[tuple[str, dict[str, Any] | files.BadRow]]:
    """Yields places with rows, or with what is wrong there."""
    module = records.source(path)
    yield from getattr(module, "attempts", module.read)(path)


def renamed(value: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Returns the row with the columns of the file under the names that training knows.

    A UserError says where another column has such a name already, which would be lost.
    """
    taken = set(columns.values())
    kept = {key: what for key, what in value.items() if key not in taken}
    lost = next((known for known, own in columns.items() if known in kept and own in value), None)
    if lost is not None:
        raise errors.UserError(
            f"columns {lost}={columns[lost]}: there is a column {lost!r} already, which would be lost; give it another "
            f"name too, as columns old_{lost}={lost},{lost}={columns[lost]}"
        )
    return {**{known: value[own] for known, own in columns.items() if own in value}, **kept}


def parse_columns(text: str) -> dict[str, str]:
    """Returns {"prompt": "ask"} of "prompt=ask"; several are separated by commas."""
    found = {}
    for part in text.split(","):
        known, _, own = part.partition("=")
        if not known.strip() or not own.strip():
            raise errors.UserError(f"columns {text!r} must be NAME=COLUMN,...; for example prompt=question")
        found[known.strip()] = own.strip()
    return found


def number(where: str) -> int:
    """Returns the line of a place, or the number of the row, from 1, where several rows share a line."""
    match = _NUMBER.search(where)
    if match is None:
        return 1
    return int(match[2]) + 1 if match[2] else int(match[3] or match[1])


def _row(
    path: str, line: int, value: Any, of_preferences: bool, cells: Callable[[dict[str, Any]], dict[str, Any]]
) -> Row:  # fmt: skip
    if isinstance(value, files.BadRow):
        return Row(line, None, None, value)
    value = cells(value)
    take = preferences.from_row if of_preferences else records.from_row
    try:
        return Row(line, value, take(value, f"{path}:{line}"), None)
    except errors.UserError as refusal:
        return Row(line, value, None, refusal)


def _key(record: records.Record | preferences.Preference | None) -> bytes:
    told = [getattr(record, field.name) for field in dataclasses.fields(record) if field.name not in ("where", "extra")]  # type: ignore[arg-type]
    return hashlib.blake2b(repr(told).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _sample(row: Row) -> Sample:
    record = row.record
    if isinstance(record, records.Text):
        return Sample(row.line, "", "", "", "", (record.text,), 1)
    if isinstance(record, records.Completion):
        return _plain(row.line, record.prompt, (record.completion,))
    if isinstance(record, records.Conversation):
        return _of_turns(row.line, record.messages)
    assert record is not None
    worse = {b for _, b in record.pairs} - {a for a, _ in record.pairs}
    kept = [n for n in range(len(record.completions)) if n not in worse and record.labels[n] != 0]
    texts = tuple(_spoken(record.completions[n]) for n in kept or range(len(record.completions)))
    if isinstance(record.prompt, str):
        return _plain(row.line, record.prompt, texts)
    said = _of_turns(row.line, record.prompt)
    return dataclasses.replace(said, answers=texts, opening=said.context, turns=said.turns + 1)


def _plain(line: int, prompt: str, answers: tuple[str, ...]) -> Sample:
    return Sample(line, "", prompt, prompt, prompt, answers, 2)


def _of_turns(line: int, turns: Sequence[records.Message]) -> Sample:
    spoken = [n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.weight]
    end = spoken[-1] if spoken else len(turns)
    context = _joined(turns[:end])
    asked = next((turn.content for turn in reversed(turns[:end]) if turn.role == "user"), "")
    system = next((turn.content for turn in turns if turn.role in ("system", "developer")), "")
    return Sample(
        line=line,
        system=system,
        asked=asked,
        opening=_joined(turns[: spoken[0]]) if len(spoken) > 1 else context,
        context=context,
        answers=tuple(turns[n].content for n in spoken) or ("",),
        turns=sum(turn.role not in ("system", "developer") for turn in turns),
    )


def _joined(prompt: str | Sequence[records.Message]) -> str:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return "\n".join(f"{turn.role}: {turn.content}{turn.tool_calls or ''}" for turn in prompt)


def _spoken(completion: str | Sequence[records.Message]) -> str:
    if isinstance(completion, str):
        return completion
    if len(completion) == 1 and not completion[0].tool_calls:
        return completion[0].content
    return "\n".join(f"{turn.content}{turn.tool_calls or ''}" for turn in completion)
