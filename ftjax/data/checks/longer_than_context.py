"""Rows with more tokens than the context."""

from collections.abc import Iterator

import numpy as np

from ftjax.data import rows

SEVERITY = "warning"
NEEDS = ("model", "limit")
WHY = "Training leaves such rows out, or cuts their answers, and with them the stop token."
FIX = "Raise max_length as far as the model goes, or shorten the rows."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows that do not fit, with their tokens."""
    if data.tokens is None or data.limit is None:
        return
    for n in np.flatnonzero(data.tokens.total > data.limit):
        total = int(data.tokens.total[n])
        yield rows.Found(data.readable[n].line, f"{total:,} tokens, but {data.limit:,} fit")
