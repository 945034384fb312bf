"""What two data files differ in: rows added, removed and changed, with the words that changed, and statistics."""

from collections import defaultdict
from collections.abc import Sequence
import dataclasses
import difflib
import json
import re
from typing import Any

from ftjax.data import rows, versions
from ftjax.data.checks import _hidden, _text

_NAMES = ("id", "_id", "uid", "uuid", "prompt_id", "conversation_id")  # columns that name a row, if each has its own
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_AROUND = 6  # words shown around a change
_SHOWN = 10  # rows of a kind in the text


@dataclasses.dataclass(frozen=True)
class Change:
    """A row of A that has become another one of B, with the texts that changed, marked [-old-]{+new+}."""

    line: int
    new_line: int
    words: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """What B has otherwise than A. `statistics` has (of A, of B) by name.

    `reshaped` counts rows that train the same and are written otherwise, in another format or with other columns.
    """

    paths: tuple[str, str]
    added: list[int]
    removed: list[int]
    changed: list[Change]
    same: int
    reshaped: int
    moved: bool
    statistics: dict[str, tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Returns the difference as JSON-ready values."""
        return dataclasses.asdict(self)

    def as_text(self, first: rows.DataFile, second: rows.DataFile) -> str:
        """Returns the difference for the console, with the first ten rows of each kind."""
        lines = [f"{self.paths[0]} -> {self.paths[1]}"]
        lines.append(
            f"{len(self.added):,} added, {len(self.removed):,} removed, {len(self.changed):,} changed, {self.same:,} "
            f"the same{', in another order' if self.moved else ''}"
            + (f", {self.reshaped:,} the same in another form" if self.reshaped else "")
        )
        for mark, found, data in (("+", self.added, second), ("-", self.removed, first)):
            texts = {row.line: row.value for row in data.rows}
            lines += [f"{mark} line {line}: {_shown(texts[line])}" for line in found[:_SHOWN]]
            lines += [f"{mark} ... {len(found) - _SHOWN:,} more"] if len(found) > _SHOWN else []
        for one in self.changed[:_SHOWN]:
            lines.append(f"~ line {one.line} -> {one.new_line}: {one.words}")
        lines += [f"~ ... {len(self.changed) - _SHOWN:,} more"] if len(self.changed) > _SHOWN else []
        for name, (old, new) in self.statistics.items():
            if old != new:
                lines.append(f"{name:<20} {old:,.10g} -> {new:,.10g}")
        return "\n".join(lines)


def between(first: rows.DataFile, second: rows.DataFile) -> Difference:
    """Returns what the second file has otherwise; rows are paired by content, what they train, id, what is asked."""
    keys = [[versions.row_hash(row.value) for row in data.rows] for data in (first, second)]
    pairs = _paired(keys[0], keys[1], range(len(keys[0])), range(len(keys[1])))
    same = len(pairs)
    order = [b for _, b in sorted(pairs)]
    rest = _rest(first, second, pairs)
    reshaped = _paired(_trained(first), _trained(second), *rest)
    rest = _rest(first, second, [*pairs, *reshaped])
    changed: list[tuple[int, int]] = []
    for names in (_ids(first, second), (_asked(first), _asked(second))):
        if names is not None:
            found = _paired(names[0], names[1], *rest)
            changed += found
            rest = _rest(first, second, [*pairs, *reshaped, *changed])
    return Difference(
        paths=(first.path, second.path),
        added=[second.rows[n].line for n in rest[1]],
        removed=[first.rows[n].line for n in rest[0]],
        changed=[
            Change(first.rows[a].line, second.rows[b].line, words(first.rows[a].value, second.rows[b].value))
            for a, b in sorted(changed)
        ],
        same=same,
        reshaped=len(reshaped),
        moved=order != sorted(order),
        statistics={
            name: (value, _statistics(second)[name]) for name, value in _statistics(first).items()
        },
    )  # fmt: skip


def words(old: Any, new: Any) -> str:
    """Returns the columns and texts that differ, as [-old-]{+new+} with some words around; private data is masked."""
    found = []
    for name, before, after in _leaves(old, new, ""):
        if isinstance(before, str) and isinstance(after, str):
            said = _marked(_hidden.hidden(before), _hidden.hidden(after))
        else:
            said = "".join(
                mark.format(_hidden.hidden(json.dumps(value, ensure_ascii=False, default=str)))
                for mark, value in (("[-{}-]", before), ("{{+{}+}}", after))
                if value is not None
            )
        found.append(f"{name}: {said}" if name else said)
    return _hidden.printable("; ".join(found))


def _leaves(old: Any, new: Any, name: str) -> list[tuple[str, Any, Any]]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [leaf for key in keys for leaf in _leaves(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list):
        most = max(len(old), len(new))
        sides = [[*side, *[None] * (most - len(side))] for side in (old, new)]
        return [leaf for n in range(most) for leaf in _leaves(sides[0][n], sides[1][n], f"{name}[{n}]")]
    return [(name, old, new)]


def _marked(old: str, new: str) -> str:
    before, after = _WORDS.findall(old), _WORDS.findall(new)
    found = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            span = before[a:b]
            found.append("".join(span) if len(span) <= 2 * _AROUND else _middle(span, a == 0, b == len(before)))
            continue
        found.append(f"[-{''.join(before[a:b])}-]" if b > a else "")
        found.append(f"{{+{''.join(after[c:d])}+}}" if d > c else "")
    return "".join(found)


def _middle(span: list[str], first: bool, last: bool) -> str:
    """Returns what is shown of words that are equal: those next to a change."""
    start = "" if first else "".join(span[:_AROUND])
    end = "" if last else "".join(span[-_AROUND:])
    return f"{start}…{end}"


def _paired(old: Sequence[Any], new: Sequence[Any], olds: Sequence[int], news: Sequence[int]) -> list[tuple[int, int]]:
    """Returns indices of equal keys, each taken once, in order; None is equal to nothing."""
    waiting: defaultdict[Any, list[int]] = defaultdict(list)
    for n in reversed(olds):
        if old[n] is not None:
            waiting[old[n]].append(n)
    return [(waiting[new[n]].pop(), n) for n in news if new[n] is not None and waiting.get(new[n])]


def _rest(
    first: rows.DataFile, second: rows.DataFile, pairs: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:  # fmt: skip
    taken = {a for a, _ in pairs}, {b for _, b in pairs}
    return [n for n in range(len(first.rows)) if n not in taken[0]], [
        n for n in range(len(second.rows)) if n not in taken[1]
    ]


def _ids(first: rows.DataFile, second: rows.DataFile) -> tuple[list[Any], list[Any]] | None:
    for name in _NAMES:
        sides = [
            [row.value.get(name) if isinstance(row.value, dict) else None for row in data.rows]
            for data in (first, second)
        ]
        values = [[repr(value) for value in side if value is not None] for side in sides]
        if all(side and len(set(side)) == len(side) for side in values):
            return tuple([None if value is None else repr(value) for value in side] for side in sides)  # type: ignore[return-value]
    return None


def _trained(data: rows.DataFile) -> list[bytes | None]:
    keys = iter(data.keys)
    return [None if row.record is None else next(keys) for row in data.rows]


def _asked(data: rows.DataFile) -> list[str | None]:
    opening = {sample.line: sample.opening for sample in data.samples}
    return [opening.get(row.line) or None for row in data.rows]


def _statistics(data: rows.DataFile) -> dict[str, float]:
    lengths = [len(text) for text in data.texts]
    answers = [len(answer) for sample in data.samples for answer in sample.answers]
    return {
        "rows": len(data.rows),
        "rows that train": len(data.readable),
        "mean characters": round(sum(lengths) / len(lengths), 1) if lengths else 0,
        "mean of an answer": round(sum(answers) / len(answers), 1) if answers else 0,
        "system prompts": len({sample.system for sample in data.samples if sample.system}),
        "turns": sum(sample.turns for sample in data.samples),
    }


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _hidden.printable(_hidden.hidden(_text.shown(text)))
