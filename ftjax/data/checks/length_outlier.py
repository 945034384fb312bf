"""Answers of a length unlike all others."""

from collections.abc import Iterator

import numpy as np

from ftjax.data import rows

SEVERITY = "note"
WHY = "A few very long rows take most of the tokens, and are often two rows in one or a document by mistake."
FIX = "Look at the row; split, shorten or remove it."
_LEAST = 5  # rows
_TIMES, _CHARACTERS = 20.0, 2000  # times the median, and characters at least


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows whose answers are more than 20 times the median and longer than 2,000 characters."""
    lengths = np.array([sum(map(len, sample.answers)) for sample in data.samples])
    if len(lengths) < _LEAST:
        return
    middle = max(float(np.median(lengths)), 1.0)
    for n in np.flatnonzero((lengths > _TIMES * middle) & (lengths > _CHARACTERS)):
        what = f"{int(lengths[n]):,} characters of answer; the median is {middle:,.0f}"
        yield rows.Found(data.samples[n].line, what)
