"""Answers that use the same words again and again."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _diversity

SEVERITY = "warning"
WHY = "A model trained on a few phrases learns to say these."
FIX = "Add rows that say other things, or fewer of each kind."
_LEAST, _PAIRS = 100, 0.1  # rows; different word pairs of all word pairs


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields one finding where fewer than one word pair in ten is a different one (distinct-2 over 20,000 words)."""
    if len(data.samples) < _LEAST:
        return
    found = _diversity.distinct(data)
    if found["distinct_2"] < _PAIRS:
        said = ", ".join(f"{name.replace('_', '-')} {value:.3f}" for name, value in found.items())
        yield rows.Found(None, f"{said} over {_diversity.WORDS:,} words of the answers")
