"""What training changed on a set of rows: paired differences, after less before, with their intervals, and flips.

A row has values "before" and "after" as `by_row` makes them. A loss is of tokens, so it is the ratio of two sums over
rows; everything else is a mean of rows. Rows that share a prompt tell less than as many apart: whole prompts are drawn
anew. Right and wrong answers have Newcombe's interval and an exact test, over prompts too (`paired.difference`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ftjax.evals import paired, statistics, verdict

LEVEL = 0.95
RESAMPLES = 10_000
METRICS = ("score", "accuracy", "margin", "loss")
FLIPPING = ("score", "accuracy")  # what a row wins or loses by, the first that it has
SHOWN = 5  # ids of rows that flipped each way


def of(rows: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """Returns what changed: a dict for each metric that rows have before and after, `flips`, and `words`.

    A metric has `before`, `after`, their difference `value` with the ends `low` and `high` of its 95 % interval, `p`,
    and `of` how many independent rows; the last four are missing where a value is not finite.
    """
    found: dict[str, Any] = {}
    for name in METRICS:
        some = [row for row in rows if all(_value(row[when], name) is not None for when in ("before", "after"))]
        if some:
            found[name] = _metric(some, name, seed)
    flipping = next((name for name in FLIPPING if name in found), None)
    if flipping is not None:
        found["flips"] = _flips(rows, flipping)
    main = next((name for name in METRICS if name in found), None)
    if main is not None:
        found["words"] = _words(main, found[main])
    return found


def _value(measured: Mapping[str, Any], name: str) -> float | None:
    """Returns the value of a row; of tokens, nats a token."""
    if name == "loss" and "nats" in measured:
        return float(measured["nats"]) / float(measured["tokens"])
    return float(measured[name]) if name in measured else None


def _weight(measured: Mapping[str, Any], name: str) -> int:
    """Returns how often a row counts in the mean: of a loss, once for each of its tokens, or labelled completions."""
    return int(measured.get("tokens", measured.get("weight", 1))) if name == "loss" else 1


def _metric(rows: Sequence[Mapping[str, Any]], name: str, seed: int) -> dict[str, Any]:
    weights = np.array([_weight(row["before"], name) for row in rows])
    a, b = (np.array([_value(row[when], name) for row in rows], np.float64) for when in ("before", "after"))
    told: dict[str, Any] = {
        "before": float(np.average(a, weights=weights)),
        "after": float(np.average(b, weights=weights)),
        "of": len(rows),
    }
    if not np.isfinite([a, b]).all():
        return told
    clusters = paired.of_prompts(row["prompt"] for row in rows)
    one, two, spread = (np.repeat(values, weights) for values in (a, b, clusters))
    return told | paired.difference(one, two, spread, level=LEVEL, resamples=RESAMPLES, seed=seed)._asdict()


def _flips(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Returns how many rows have more of a metric after than before, and how many less, with the ids of the first."""
    won, lost = ([row["id"] for row in flipped(rows, name, sign)] for sign in (1, -1))
    return {"of": name, "won": len(won), "lost": len(lost), "ids": {"won": won[:SHOWN], "lost": lost[:SHOWN]}}


def flipped(rows: Sequence[Mapping[str, Any]], name: str, sign: int) -> list[Mapping[str, Any]]:
    """Returns the rows that have more of a metric after than before (`sign` 1), or less (-1)."""
    both = [row for row in rows if name in row["before"] and name in row["after"]]
    return [row for row in both if (float(row["after"][name]) - float(row["before"][name])) * sign > 0]


def _words(name: str, found: Mapping[str, Any]) -> str:
    if "p" not in found:
        return f"undecided: the {name} of a row is not finite"
    difference = statistics.Difference(**{key: found[key] for key in statistics.Difference._fields})
    said = verdict.in_words(difference, a="before", b="after")
    return f"{name}: {said}"
