"""Answers that repeat what was asked."""

from collections.abc import Iterator

from ftjax.data import rows, similarity
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model learns to echo the prompt."
FIX = "Cut the prompt out of the answer; often two columns were filled from one."
_LEAST = 20  # characters: short prompts come back in good answers


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with an answer that is the prompt, or begins with the whole of it."""
    for sample in data.samples:
        asked = similarity.normal(sample.asked[:2000])
        if len(asked) < _LEAST:
            continue
        for answer in sample.answers:
            begins = similarity.normal(answer[: 2 * len(sample.asked) + 50])
            if begins == asked or begins.startswith(f"{asked} "):
                how = "is" if begins == asked else "begins with"
                yield rows.Found(sample.line, f"the answer {how} the prompt: {_text.shown(answer)}")
                break
