"""Rows of a data file, chosen by what `data.py score` and `data.py check` say of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import check, files, rows, scores, select

_COUNTS = {"errors": "error", "warnings": "warning", "notes": "note"}  # columns: findings of this severity in the row
SCORES = (*scores.NUMBERS, *scores.FLAGS)


class Chosen(NamedTuple):
    """The chosen rows as they stand in the file, in its order, and how they were chosen."""

    values: list[Any]
    told: list[str]
    of_preferences: bool


class Wanted(NamedTuple):
    """What is to be kept, step by step; None: no such step."""

    keep: str | None  # an expression
    top: int | None  # rows of the largest `by`
    by: str | None
    diverse: int | None  # rows that stand for all that are left
    method: str
    seed: int


def choose(file: str, wanted: Wanted, *, scores_at: Path | None) -> Chosen:
    """Returns the rows of a file that are wanted.

    Scores are read where something asks for them, and rules are run that the expression names. A row that training
    refuses is never chosen.
    """
    runnable = {rule.name: rule for rule in check.rules() if not rule.needs}
    _refuse_rules_in_need(wanted.keep, runnable)
    expression = None if wanted.keep is None else select.Expression(wanted.keep, [*SCORES, *_COUNTS], list(runnable))
    if (wanted.top is None) != (wanted.by is None):
        raise errors.UserError("--top N and --by COLUMN go together; for example --top 500 --by ifd")
    if wanted.by is not None and wanted.by not in SCORES:
        raise errors.UserError(
            f"--by {wanted.by!r}: no such column{files.close_to(wanted.by, list(SCORES))}; known: {', '.join(SCORES)}"
        )
    if wanted.top is not None and wanted.top < 1:
        raise errors.UserError(f"--top {wanted.top} must be at least 1")
    names = expression.names if expression else []
    scored = None
    if wanted.by or wanted.diverse is not None or set(names) & set(SCORES):
        scored = scores.of_file(file, scores_at)
    data = rows.read(file)
    left = np.array([n for n, row in enumerate(data.rows) if row.record is not None], int)
    told = [f"{len(data.rows):,} rows"]
    if len(left) < len(data.rows):
        told.append(f"{len(data.rows) - len(left):,} that training refuses are left out")
    if expression is not None:
        columns = {name: scored.values[name] for name in names if scored is not None and name in SCORES}
        columns |= _findings(data, [name for name in names if name not in SCORES])
        kept, unknown = expression.kept(columns, count=len(data.rows))
        left = left[kept[left]]
        more = f" ({int(unknown.sum()):,} lack a value that decides it)" if unknown.any() else ""
        told.append(f"{len(left):,} kept by: {wanted.keep}{more}")
    if wanted.top is not None and wanted.by is not None and scored is not None:
        left = left[select.largest(scored.values[wanted.by][left], wanted.top)]
        told.append(f"{len(left):,} of the largest {wanted.by}")
    if wanted.diverse is not None and scored is not None:
        left = _diverse(scored, left, wanted, told)
    return Chosen([data.rows[n].value for n in left], told, data.of_preferences)


def _diverse(scored: scores.Scores, left: np.ndarray, wanted: Wanted, told: list[str]) -> np.ndarray:
    placed = left[scored.scored[left]]
    if not len(placed):
        raise errors.UserError("--diverse: no row with an embedding is left to choose from; keep more rows")
    assert wanted.diverse is not None
    unit = scores.directions(scored.embedding[placed])
    chosen = select.diverse(unit, wanted.diverse, method=wanted.method, seed=wanted.seed)
    share = select.covered(unit, chosen.tolist()) / len(unit)
    nearest = f"a row's nearest chosen one has a similarity of {share:.2f} in the mean"
    told.append(f"{len(chosen):,} of {len(placed):,} by {wanted.method}; {nearest}")
    return np.sort(placed[chosen])


def _refuse_rules_in_need(keep: str | None, runnable: Iterable[str]) -> None:
    """Raises for a rule that looks at more than the file."""
    for rule in check.rules():
        if keep is not None and rule.name not in runnable and rule.name in keep.replace("(", " ").split():
            flags = ", ".join(check.NEEDS[need] for need in rule.needs)
            raise errors.UserError(
                f"--keep: the rule {rule.name} needs {flags}, which select has not; data.py check names its rows"
            )


def _findings(data: rows.DataFile, names: list[str]) -> dict[str, np.ndarray]:
    """Returns by name of a rule, which rows it finds, bool; by name of a severity, how many findings a row has."""
    found: dict[str, np.ndarray] = {}
    counted = {severity for name, severity in _COUNTS.items() if name in names}
    totals = {severity: np.zeros(len(data.rows)) for severity in counted}
    place = {row.line: n for n, row in enumerate(data.rows)}
    for rule in check.rules():
        if rule.needs or (rule.name not in names and rule.severity not in counted):
            continue
        own = [place[line] for line, _ in rule.module.check(data) if line is not None]
        if rule.name in names:
            found[rule.name] = np.isin(np.arange(len(data.rows)), own)
        if rule.severity in counted:
            np.add.at(totals[rule.severity], own, 1)
    return found | {name: totals[severity] for name, severity in _COUNTS.items() if name in names}
