"""Rows of which truncation leaves no answer."""

from collections.abc import Iterator

import numpy as np

from ftjax.data import rows

SEVERITY = "warning"
NEEDS = ("model", "limit")
WHY = "The prompt alone fills the context, so nothing is left to learn from, however the row is cut."
FIX = "Shorten the prompt, or raise max_length."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows whose first trained token does not fit."""
    if data.tokens is None or data.limit is None:
        return
    for n in np.flatnonzero(data.tokens.before >= data.limit):
        before = int(data.tokens.before[n])
        yield rows.Found(data.readable[n].line, f"{before:,} tokens before the answer, but {data.limit:,} fit")
