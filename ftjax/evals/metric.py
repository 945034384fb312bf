"""What every metric returns: its score with all that somebody needs to compute it again."""

from collections.abc import Sequence
from typing import NamedTuple

from ftjax.errors import UserError


class Score(NamedTuple):
    """A score of a set of answers; `each` has one value an answer, for `statistics.paired_bootstrap`."""

    score: float
    signature: str  # what was computed, by which version of what
    each: tuple[float, ...]

    def __float__(self) -> float:
        return self.score


def mean(values: Sequence[float], signature: str) -> Score:
    """Returns the mean over answers."""
    return Score(sum(values) / len(values), signature, tuple(values))


def check(name: str, hypotheses: Sequence[object], references: Sequence[object] | None = None) -> None:
    """Raises a UserError for an empty set, and where not every answer has its reference."""
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ValueError(f"{name}: a list of texts, not one text")
    if references is not None and len(hypotheses) != len(references):
        raise UserError(
            f"{name}: {len(hypotheses)} answers and {len(references)} references; give one reference for each answer"
        )
    if not len(hypotheses):
        raise UserError(f"{name}: there is no answer to measure; give at least one")
