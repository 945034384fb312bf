"""How many different runs of words the answers of a file have."""

import itertools

from ftjax.data import rows, topics
from ftjax.data.checks import _text

WORDS = 20_000  # looked at: distinct-n falls with the number of words, so files are compared at the same one
_ROWS = 4_000


def distinct(data: rows.DataFile) -> dict[str, float]:
    """Returns the shares of different runs of 1, 2 and 3 words (Li et al., 1510.03055)."""
    chosen = (data.samples[n] for n in topics.spread(len(data.samples), _ROWS))
    words = itertools.chain.from_iterable(_text.words(answer) for sample in chosen for answer in sample.answers)
    said = list(itertools.islice(words, WORDS))
    found = {}
    for size in (1, 2, 3):
        runs = list(zip(*(said[n:] for n in range(size)), strict=False))
        found[f"distinct_{size}"] = len(set(runs)) / len(runs) if runs else 0.0
    return found
