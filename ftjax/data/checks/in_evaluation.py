"""Rows that are in an evaluation file too, or nearly."""

from collections.abc import Iterator

from ftjax.data import rows, similarity
from ftjax.data.checks import _text

SEVERITY = "error"
NEEDS = ("against",)
WHY = "What was trained on cannot be measured: the score says how well it was remembered."
FIX = "Remove the row here, or there."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows whose prompt is one of an evaluation file, and rows that are nearly one of it."""
    for n, (place, how) in matched(data).items():
        sample = data.samples[n]
        yield rows.Found(sample.line, f"{how} {place}: {_text.shown(sample.opening or sample.answer)}")


def matched(data: rows.DataFile) -> dict[int, tuple[str, str]]:
    """Returns by the index of the row where it is found, and how equal it is."""
    found: dict[int, tuple[str, str]] = {}
    for other, near in zip(data.against, data.near_against, strict=True):
        asked = {similarity.normal(_asked(sample)): sample.line for sample in reversed(other.samples)}
        for n, sample in enumerate(data.samples):
            line = asked.get(similarity.normal(_asked(sample)))
            if line is not None:
                found.setdefault(n, (f"{other.path}:{line}", "has the prompt of"))
        for one in near:
            place = f"{other.path}:{other.readable[one.like].line}"
            found.setdefault(one.row, (place, f"is nearly (Jaccard {one.jaccard:.2f})"))
    return dict(sorted(found.items()))


def _asked(sample: rows.Sample) -> str:
    return sample.opening or sample.answer
