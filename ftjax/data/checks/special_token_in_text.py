"""Text that the tokenizer reads as a special token."""

from collections.abc import Iterator

import numpy as np

from ftjax.data import rows

SEVERITY = "warning"
NEEDS = ("model",)
WHY = "A stop token inside of an answer teaches to stop there; a role token lets data speak as the system."
FIX = "Remove the token's writing from the text, unless it is there on purpose."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows whose own text holds the writing of one."""
    if data.tokens is not None:
        for n in np.flatnonzero(data.tokens.special):
            yield rows.Found(data.readable[n].line, "the text holds the writing of a special token")
