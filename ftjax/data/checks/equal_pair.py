"""Pairs whose two completions are equal."""

from collections.abc import Iterator

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "There is nothing to prefer; training leaves the pair out (config.data.equal)."
FIX = "Remove the pair."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields pairs that are equal but for white space."""
    for pair in data.pairs:
        if "".join(pair.better.split()) == "".join(pair.worse.split()):
            yield rows.Found(pair.line, f"chosen and rejected are both {_text.shown(pair.better)}")
