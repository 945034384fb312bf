"""A data file held against what makes fine-tuning succeed: rule by rule, in words, kept or not or not known.

The rules: enough good examples, diverse, consistent, edge cases included, not what the model does already, reviewed by
people, and a version to come back to. What is counted comes from the summary of `check`.
"""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ftjax.data import files, rows, versions
from ftjax.data.checks import _text, fewer_than_50, fewer_than_500

_CONSISTENT = (
    *("answer_format", "system_prompts", "contradicting_answers", "contradicting_pairs", "placeholders"),
    *("answer_cut_off", "prompts_differ"),
)
_ONCE = ("duplicate_rows", "near_duplicates", "in_evaluation")
_DIVERSE = ("one_cluster", "low_diversity")
DECISIONS = ".decisions.jsonl"  # the ending of what `data.py review --export` writes beside the reviewed file
_HANDLED = 0.1  # share of rows that the model answers already, from which they are worth leaving out


class Line(NamedTuple):
    """A rule, whether the file keeps it (None: not known), and what was found."""

    rule: str
    kept: bool | None
    found: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the line as JSON-ready values."""
        return self._asdict()


def judged(data: rows.DataFile, summary: Mapping[str, Any], errors: Sequence[str]) -> list[Line]:
    """Returns every rule with what was found; `errors` are the rules of `checks/` of that severity."""
    count, rules = summary["readable"], summary["rules"]
    many = f"{_text.plural(count, 'row')} can be trained on"
    return [
        Line("no row that training stops at", not summary["errors"], _named(rules, errors) or "none"),
        Line(f"at least {fewer_than_50.LEAST} to 100 good examples", count >= fewer_than_50.LEAST, many),
        Line(f"better {fewer_than_500.LEAST} to 5,000", count >= fewer_than_500.LEAST, many),
        _diverse(summary, rules),
        _of_rules("consistent", rules, _CONSISTENT, "no two ways of answering one kind of prompt were found"),
        _edge_cases(summary),
        _of_rules("each row once", rules, _ONCE, "no row is there twice, or nearly"),
        _handled(data),
        _reviewed(data),
        versioned(data),
    ]


def _named(rules: Mapping[str, int], names: Sequence[str]) -> str:
    return ", ".join(f"{name} ({rules[name]:,})" for name in names if name in rules)


def _of_rules(what: str, rules: Mapping[str, int], names: Sequence[str], none: str) -> Line:
    found = _named(rules, names)
    return Line(what, not found, found or none)


def _diverse(summary: Mapping[str, Any], rules: Mapping[str, int]) -> Line:
    found = _named(rules, _DIVERSE)
    if found or "clusters" not in summary:
        return Line("diverse", False if found else None, found or "too few rows to tell")
    first = summary["clusters"][0]
    return Line("diverse", True, f"{len(summary['clusters'])} topics, {first['share']:.0%} of the rows in the largest")


def _edge_cases(summary: Mapping[str, Any]) -> Line:
    if "edge_cases" not in summary:
        return Line("edge cases included", None, "no rows to look at")
    cases = summary["edge_cases"]
    there = sum(map(bool, cases.values()))
    return Line("edge cases included", there == len(cases), f"{there} of {len(cases)} kinds")


def _handled(data: rows.DataFile) -> Line:
    rule = "not what the model does already"
    known = [] if data.scores is None else data.scores.values["handled"]
    known = np.asarray(known)[np.isfinite(known)] if len(known) else np.zeros(0)
    if not len(known):
        return Line(rule, None, "data.py score asks a model")
    done = int(known.sum())
    return Line(rule, done <= _HANDLED * len(known), f"{done:,} of {len(known):,} rows are answered right before")


def _reviewed(data: rows.DataFile) -> Line:
    """Returns whether people decided on every row, as what `data.py review --export` wrote beside the file says."""
    rule, place = "every example reviewed", Path(data.path.removesuffix(".jsonl") + DECISIONS)
    if not place.exists():
        return Line(rule, None, "data.py review asks people")
    try:
        told = [json.loads(text) for _, text in files.lines(place)]
        left = [one for one in told if one["written"] is not None]
        decided = sum(one["decision"] in ("accept", "edit") for one in left)
        names = sorted({name for one in left for name in one["by"]})
    except (ValueError, KeyError, TypeError) as bad:
        return Line(rule, None, f"{place} cannot be read ({bad})")
    if len(left) != len(data.rows):
        return Line(rule, False, f"{place.name} is of {len(left):,} rows; the file has other ones now")
    return Line(rule, decided == len(left), f"{decided:,} of {len(left):,} rows, by {', '.join(names) or 'nobody'}")


def versioned(data: rows.DataFile) -> Line:
    """Returns whether what the file holds is its last version."""
    try:
        known = [] if data.path.startswith("world:") else versions.history(data.path)
    except ValueError as broken:
        return Line("versioned", False, str(broken))
    if not known:
        return Line("versioned", False, "check --save NOTE keeps a version")
    if known[-1].hash != versions.now(data.path):
        return Line("versioned", False, f"changed since {known[-1].hash[: versions.SHORT]}; check --save NOTE")
    return Line("versioned", True, f"{known[-1].hash[: versions.SHORT]} of {known[-1].created}")
