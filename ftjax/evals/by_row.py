"""What a model does on each row of a set, beside the means over it: sums by row over packed batches, and its answers.

A batch gives a value and a weight to elements: tokens, pairs or completions. Rows that share a row of a batch stand
behind one another there, each with as many elements as it has, so its own can be added up without another pass.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from ftjax.evals import perplexity, tasks

Elements = Mapping[str, tuple[Any, Any]]  # values times weights and weights, [B, elements]; "loss", and metrics
Evaluate = Callable[[Any], tuple[Any, Elements]]  # batch -> what `perplexity.evaluate` adds up, and its elements
Row = dict[str, Any]
Found = dict[str, np.ndarray]  # float64 [2, rows]: sums of values and of weights, by name

# Of pairs and completions, as their losses call them.
ACCURACY, MARGIN = ("rewards/accuracies", "accuracy"), ("rewards/margins", "margin")
KINDS = ("rewards/chosen", "rewards/rejected")
NAMES = ("loss", *ACCURACY, *MARGIN, *KINDS)


class Told(NamedTuple):
    """What a row is known by."""

    id: str  # the first 16 digits of the hash of its source
    prompt: str
    reference: str | None
    task: str | None  # as its column says, where there is one


class Places(NamedTuple):
    """Where the elements of rows stand in batches."""

    batches: list[list[np.ndarray]]  # which rows stand in each row of each global batch, in order
    counts: np.ndarray  # elements of every row, int [rows]


class Measured(NamedTuple):
    """What was measured of a set: means over it, answers, and by row what they are the means of."""

    numbers: dict[str, float]
    answers: list[tasks.Answer]
    rows: list[Row]


def evaluate(
    run: Evaluate, batches: Sequence[Any], size: perplexity.Units, places: Places
) -> tuple[dict[str, float], Found]:
    """Returns the means over a set, as `perplexity.evaluate` has them, and the sums of every row, in one pass."""
    found: Found = {}
    where = iter(places.batches)

    def sums(batch: Any) -> Any:
        totals, elements = run(batch)
        members = next(where)
        for name in NAMES:
            if name in elements:
                into = found.setdefault(name, np.zeros((2, len(places.counts))))
                _add(into, [np.asarray(part) for part in elements[name]], members, places.counts)
        return totals

    return perplexity.evaluate(sums, batches, size), found


def _add(into: np.ndarray, parts: Sequence[np.ndarray], members: Sequence[np.ndarray], counts: np.ndarray) -> None:
    for b, rows in enumerate(members):
        owners = np.repeat(rows, counts[rows])
        for total, part in zip(into, parts, strict=True):
            np.add.at(total, owners, part[b, : len(owners)])


def of_tokens(found: Found) -> list[Row]:
    """Returns the summed loss and the number of the supervised tokens of every row."""
    return [{"nats": float(nats), "tokens": round(float(count))} for nats, count in found["loss"].T]


def of_elements(found: Found, *, labels: bool) -> list[Row]:
    """Returns the mean loss of the pairs or labelled completions of every row, and what they say of their order.

    A row of `labels` counts as often as it has labelled completions: its `weight`. It has a margin where some are good
    and some are bad.
    """
    rows: list[Row] = [{"loss": float(value / (weight or 1))} for value, weight in found["loss"].T]
    for key, names in (("accuracy", ACCURACY), ("margin", MARGIN)):
        name = next((name for name in names if name in found), None)
        if name is not None:
            for row, (value, weight) in zip(rows, found[name].T, strict=True):
                row[key] = float(value / (weight or 1))
    if labels:
        for row, (_, weight) in zip(rows, found["loss"].T, strict=True):
            row["weight"] = round(float(weight))
    if labels and all(name in found for name in KINDS):
        for row, (good, n), (bad, m) in zip(rows, *(found[name].T for name in KINDS), strict=True):
            if n and m:
                row["margin"] = float(good / n - bad / m)
                row["accuracy"] = float(row["margin"] > 0)
    return rows


def add_answers(
    rows: Sequence[Row], given: Sequence[tasks.Answer], asked: Sequence[int], count: Callable[[str], int]
) -> None:  # fmt: skip
    """Adds answers, with their tokens and scores, to the rows that were asked; `count` gives the tokens of a text."""
    for at, answer in zip(asked, given, strict=True):
        if not math.isnan(answer.score):
            rows[at]["score"] = float(answer.score)
        rows[at] |= {"answer": answer.prediction, "answer_tokens": count(answer.prediction)}
