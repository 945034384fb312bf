"""Answers that stop in the middle of a sentence, a list or a block of code."""

from collections.abc import Iterator
import re

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model learns to stop in the middle; the limit of another generation is the usual cause."
FIX = "Complete the answer, or remove the row."
_LEAST, _SHARE = 10, 0.8  # rows, and the share that ends whole, before an end without punctuation says something
_LONG = 100  # characters: short answers need no sentence
_OPEN = re.compile(
    r"(?:,|;|\b(?:and|or|the|a|an|of|to|in|with|for|is|are|that|which|because|but|by|from))$", re.IGNORECASE
)
_ENDS = tuple(".!?…:)]}\"'”’»`*|>。！？")


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with an answer that ends in a comma or a small word, or within a code fence.

    Where four in five long answers end with punctuation, a long one without it counts too.
    """
    long = [sample for sample in data.samples if len(sample.answer) >= _LONG]
    whole = sum(sample.answer.rstrip().endswith(_ENDS) for sample in long)
    strict = len(long) >= _LEAST and whole >= _SHARE * len(long)
    for sample in data.samples:
        for answer in sample.answers:
            end = answer.rstrip()
            if len(end) < _LONG:
                continue
            what = (
                "within a code fence" if end.count("```") % 2
                else "in the middle of a sentence" if _OPEN.search(end)
                else "without punctuation, unlike most" if strict and end[-1].isalpha()
                else ""
            )  # fmt: skip
            if what:
                yield rows.Found(sample.line, f"an answer ends {what}: {_text.shown(f'…{end[-40:]}')}")
                break
