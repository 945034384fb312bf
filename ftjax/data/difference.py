"""What two data files differ in: rows added, removed and changed, with the words that changed, and statistics."""

import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence
import dataclasses
import difflib
import functools
import itertools
import json
import re
from typing import Any

from ftjax.data import rows, versions
from ftjax.data.checks import _hidden, _text

_NAMES = ("id", "_id", "uid", "uuid", "prompt_id", "conversation_id")  # columns that name a row, if each has its own
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_WORK = 10_000_000  # pairs of equal words that may be looked at: about a second
_RUN = 5  # words, white space among them, that are taken for the same where both texts have them once
_AROUND = 6  # words shown around a change
_SHOWN = 10  # rows of a kind in the text

_Step = tuple[str, int, int, int, int]  # as difflib's opcodes: what it is, its words in A and in B


@dataclasses.dataclass(frozen=True)
class Change:
    """A row of A that has become another one of B."""

    line: int
    new_line: int
    old: Any
    new: Any

    @functools.cached_property  # for a text that was rewritten it takes a second, and ten rows are shown
    def words(self) -> str:
        """The texts that changed, marked [-old-]{+new+}."""
        return words(self.old, self.new)

    def as_dict(self) -> dict[str, Any]:
        """Returns the change as JSON-ready values."""
        return {"line": self.line, "new_line": self.new_line, "words": self.words}


@dataclasses.dataclass(frozen=True)
class Difference:
    """What B has otherwise than A. `statistics` has (of A, of B) by name.

    `reshaped` counts rows that train the same and are written otherwise, in another format or with other columns.
    `places` are those of the removed rows in A, and of the added ones in B, from 0.
    """

    paths: tuple[str, str]
    added: list[int]
    removed: list[int]
    changed: list[Change]
    same: int
    reshaped: int
    moved: bool
    statistics: dict[str, tuple[float, float]]
    places: tuple[list[int], list[int]]

    def as_dict(self) -> dict[str, Any]:
        """Returns the difference as JSON-ready values."""
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "places"}
        return told | {"changed": [one.as_dict() for one in self.changed]}

    def as_text(self, first: rows.DataFile, second: rows.DataFile) -> str:
        """Returns the difference for the console, with the first ten rows of each kind."""
        lines = [f"{self.paths[0]} -> {self.paths[1]}"]
        lines.append(
            f"{len(self.added):,} added, {len(self.removed):,} removed, {len(self.changed):,} changed, {self.same:,} "
            f"the same{', in another order' if self.moved else ''}"
            + (f", {self.reshaped:,} the same in another form" if self.reshaped else "")
        )
        for mark, places, data in (("+", self.places[1], second), ("-", self.places[0], first)):
            found = [data.rows[n] for n in places[:_SHOWN]]
            lines += [f"{mark} line {row.line}: {_shown(row.value)}" for row in found]
            lines += [f"{mark} ... {len(places) - _SHOWN:,} more"] if len(places) > _SHOWN else []
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
            Change(first.rows[a].line, second.rows[b].line, first.rows[a].value, second.rows[b].value)
            for a, b in sorted(changed)
        ],
        same=same,
        reshaped=len(reshaped),
        moved=order != sorted(order),
        statistics={
            name: (value, _statistics(second)[name]) for name, value in _statistics(first).items()
        },
        places=rest,
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
    for kind, a, b, c, d in _steps(before, after):
        if kind == "equal":
            span = before[a:b]
            found.append("".join(span) if len(span) <= 2 * _AROUND else _middle(span, a == 0, b == len(before)))
            continue
        found.append(f"[-{''.join(before[a:b])}-]" if b > a else "")
        found.append(f"{{+{''.join(after[c:d])}+}}" if d > c else "")
    return "".join(found)


class _Words(difflib.SequenceMatcher[Any]):
    """Compares lists until so many pairs of equal items have been looked at.

    Where `left` is below 0 that was not enough, and what was not come to counts as replaced.
    """

    def __init__(self, before: Sequence[Any], after: Sequence[Any], left: int) -> None:
        super().__init__(None, before, after, autojunk=False)
        self.left = left
        times = Counter(after)
        self._pairs = list(itertools.accumulate((times[item] for item in before), initial=0))

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Any:
        """Returns the longest equal part, or none where there is no work left to do; SequenceMatcher calls it."""
        if self.left >= 0:
            self.left -= self._pairs[-1 if ahi is None else ahi] - self._pairs[alo]
        return super().find_longest_match(alo, ahi, blo, bhi) if self.left >= 0 else difflib.Match(alo, blo, 0)


def _steps(before: list[str], after: list[str]) -> list[_Step]:
    """Returns what is equal and what is not, word by word as difflib pairs them.

    Where that takes too long, the ends that are equal and the runs of words that both have once, in one order, are
    paired first, and difflib looks between them; a part that still takes too long is replaced as a whole.
    """
    found, left = _between(before, after, 0, 0, _WORK)
    if left >= 0:
        return found
    fixed = _fixed(before, after)
    found, left, a, c = [], _WORK if fixed else 0, 0, 0
    for b, d in [*fixed, (len(before), len(after))]:
        inner, left = _between(before[a:b], after[c:d], a, c, left)
        found += [*inner, ("equal", b, b + 1, d, d + 1)]
        a, c = b + 1, d + 1
    return _joined(found[:-1])  # the last one stands behind the ends


def _between(before: list[str], after: list[str], a: int, c: int, left: int) -> tuple[list[_Step], int]:
    """Returns the steps between words that begin at two places, and how much work is left; below 0, they are whole."""
    b, d = a + len(before), c + len(after)
    if before == after:
        return [("equal", a, b, c, d)] if before else [], left
    if not before or not after:
        return [("delete" if before else "insert", a, b, c, d)], left
    matcher = _Words(before, after, left)
    found: list[_Step] = [(kind, a + i, a + j, c + k, c + m) for kind, i, j, k, m in matcher.get_opcodes()]
    return found if matcher.left >= 0 else [("replace", a, b, c, d)], matcher.left


def _fixed(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    """Returns places of equal words: of the ends that are equal, and between them of runs of words that both have once.

    Of these as many as come in one order, which is patience diff: the longest rising sequence, by piles of cards.
    """
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])
    middle = [
        [tuple(side[n : n + _RUN]) for n in range(start, len(side) - end)] for side in (before, after)
    ]  # fmt: skip
    times = [Counter(side) for side in middle]
    place = {run: n for n, run in enumerate(middle[1])}
    once = [(n, place[run]) for n, run in enumerate(middle[0]) if times[0][run] == times[1][run] == 1]
    tops: list[int] = []  # of the piles: places in `after`
    cards: list[int] = []  # of the piles: their top cards, as numbers in `once`
    below: list[int] = []  # of each card: the top card of the pile to its left, when it was laid down
    for card, (_, there) in enumerate(once):
        pile = bisect.bisect_left(tops, there)
        tops[pile : pile + 1], cards[pile : pile + 1] = [there], [card]
        below.append(cards[pile - 1] if pile else -1)
    rising, card = [], cards[-1] if cards else -1
    while card >= 0:
        rising.append(once[card])
        card = below[card]
    last = [(len(before) - n, len(after) - n) for n in range(end, 0, -1)]
    return [*((n, n) for n in range(start)), *((start + n, start + there) for n, there in reversed(rising)), *last]


def _shared(before: Sequence[str], after: Sequence[str]) -> int:
    """Returns with how many equal words both begin."""
    differ = (n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
    return next(differ, min(len(before), len(after)))


def _joined(steps: Sequence[_Step]) -> list[_Step]:
    """Returns the steps with neighbours that are equal as one."""
    found: list[_Step] = []
    for step in steps:
        if found and found[-1][0] == step[0] == "equal":
            found[-1] = (step[0], found[-1][1], step[2], found[-1][3], step[4])
        else:
            found.append(step)
    return found


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
    openings = (sample.opening for sample in data.samples)
    return [None if row.record is None else next(openings) or None for row in data.rows]


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
