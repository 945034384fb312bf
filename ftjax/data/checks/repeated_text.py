"""Answers that say one thing over and over."""

from collections.abc import Iterator
import zlib

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model learns to fall into the loop."
FIX = "Cut the answer after the first time, or remove the row."
_LEAST = 400  # characters: shorter texts compress by too little to tell
# Compressed bytes of a byte. Of 7,473 answers of GSM8K the least is 0.29, of 640 of MedQuAD 0.10 (tables of symptoms).
_RATIO = 0.08


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with an answer that deflate makes smaller than 8 %."""
    for sample in data.samples:
        for answer in sample.answers:
            raw = answer.encode("utf-8", "surrogatepass") if len(answer) >= _LEAST else b""
            if raw and len(zlib.compress(raw, 1)) < _RATIO * len(raw):
                yield rows.Found(sample.line, f"{len(answer):,} characters that repeat: {_text.shown(answer)}")
