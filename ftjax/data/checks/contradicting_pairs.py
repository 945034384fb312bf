"""Annotators who contradict each other: one pair the one way and the other, one completion good and bad."""

from collections.abc import Iterator

from ftjax.data import preferences, rows, similarity
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The two rows cancel each other, and say that the guidelines leave room."
FIX = "Decide for one of them, and write into the guidelines why."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows that say the opposite of an earlier one on the same prompt."""
    seen: dict[tuple[str, str, str], int] = {}
    for pair in data.pairs:
        prompt, better, worse = (similarity.normal(text) for text in pair[1:])
        seen.setdefault((prompt, better, worse), pair.line)
        before = seen.get((prompt, worse, better))
        if before is not None and better != worse:
            yield rows.Found(pair.line, f"prefers what line {before} rejects: {_text.shown(pair.better)}")
    yield from _labels(data)


def _labels(data: rows.DataFile) -> Iterator[rows.Found]:
    seen: dict[str, tuple[float, int]] = {}
    for row in data.readable:
        record = row.record
        if not isinstance(record, preferences.Preference) or record.pairs:
            continue
        for completion, label in zip(record.completions, record.labels, strict=True):
            if label not in (0.0, 1.0):
                continue
            first, line = seen.setdefault(repr((record.prompt, completion)), (label, row.line))
            if first != label:
                yield rows.Found(row.line, f"label {label:g}, but line {line} gives the same completion {first:g}")
