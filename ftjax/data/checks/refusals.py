"""Answers that refuse."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _phrases, _text

SEVERITY = "note"
WHY = "The model learns to refuse; a few rows on what must be refused are wanted, by-products of another model are not."
FIX = "Keep those that are policy; answer or remove the others."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with an answer that refuses in its first 300 characters."""
    for sample in data.samples:
        for answer in sample.answers:
            if _phrases.REFUSAL.search(answer[:300]):
                yield rows.Found(sample.line, _text.shown(answer))
                break
