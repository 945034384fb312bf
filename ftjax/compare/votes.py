"""What people said of pairs of answers: a JSONL file of votes -> who is preferred, how surely, do raters agree.

A line: {"prompt", "a", "b": the two answers, "run_a", "run_b": who gave them, "choice": a | b | tie | both_bad,
"rater"}. Other columns are left alone.
"""

from collections.abc import Sequence
import json
from typing import Any, NamedTuple

import numpy as np

from ftjax.data import files
from ftjax.errors import UserError
from ftjax.evals import statistics

CHOICES = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
_MIRRORED = {"a": "b", "b": "a"}


class Vote(NamedTuple):
    """One person's choice between the answers of two runs."""

    prompt: str
    run_a: str
    run_b: str
    choice: str
    rater: str


def read(path: str) -> list[Vote]:
    """Returns the votes of a file; a line that is none is named."""
    found = []
    for number, line in files.lines(path):
        try:
            value = json.loads(line)
            vote = Vote(*(str(value[name]) for name in ("prompt", "run_a", "run_b", "choice", "rater")))
        except (ValueError, KeyError, TypeError) as bad:
            raise UserError(
                f"{path}:{number}: no vote ({bad!r}); a line has prompt, a, b, run_a, run_b, choice, rater"
            ) from None
        if vote.choice not in CHOICES:
            raise UserError(f"{path}:{number}: choice {vote.choice!r} is none of {', '.join(CHOICES)}")
        found.append(vote)
    return found


def of_systems(votes: Sequence[Vote], names: Sequence[str]) -> tuple[list[Vote], list[str]]:
    """Returns the votes between two of the systems, and what is to be said of the others; raises where all are such."""
    same = [vote for vote in votes if vote.run_a == vote.run_b]
    kept = [vote for vote in votes if vote.run_a != vote.run_b and {vote.run_a, vote.run_b} <= {*names}]
    strange = sorted({run for vote in votes for run in (vote.run_a, vote.run_b)} - {*names})
    if votes and not kept:
        what = f"they are of {', '.join(strange)}" if strange else "each has one run as both run_a and run_b"
        raise UserError(
            f"--votes has no vote between two of --runs, which are {', '.join(names)}: {what}; name them in run_a and "
            f"run_b as they are called here{files.close_to(strange[0], list(names)) if strange else ''}"
        )
    notes = [f"{len(same):,} votes have one run as both run_a and run_b and are left out"] if same else []
    rest = len(votes) - len(kept) - len(same)
    if rest:
        notes.append(f"{rest:,} votes are on {', '.join(strange)}, not compared here, and are left out")
    return kept, notes


def report(votes: Sequence[Vote], *, baseline: str, level: float) -> list[dict[str, Any]]:
    """Returns for each two runs how often the first is preferred (a tie, or both bad, is half), with its interval over
    prompts, and Krippendorff's alpha of the choices where several people saw one prompt. The baseline is the second.
    """
    groups: dict[tuple[str, str], list[Vote]] = {}
    for vote in votes:
        first, second = sorted((vote.run_a, vote.run_b), key=lambda name: (name == baseline, name))
        choice = vote.choice if vote.run_a == first else _MIRRORED.get(vote.choice, vote.choice)
        groups.setdefault((first, second), []).append(vote._replace(run_a=first, run_b=second, choice=choice))
    return [_pair(*names, own, level) for names, own in sorted(groups.items())]


def _pair(a: str, b: str, own: Sequence[Vote], level: float) -> dict[str, Any]:
    numbers: dict[str, int] = {}  # NumPy would make every prompt as wide as the longest one
    prompts = np.array([numbers.setdefault(vote.prompt, len(numbers)) for vote in own])
    rate = statistics.share(np.array([CHOICES[vote.choice] for vote in own]), prompts, level=level)
    counts = {choice: sum(vote.choice == choice for vote in own) for choice in CHOICES}
    raters = sorted({vote.rater for vote in own})
    return {
        "a": a,
        "b": b,
        "votes": len(own),
        "prompts": int(prompts.max()) + 1,
        "raters": len(raters),
        "win_rate": rate._asdict(),
        "alpha": _alpha(own, prompts, raters),
        "choices": counts,
    }


def _alpha(own: Sequence[Vote], prompts: np.ndarray, raters: Sequence[str]) -> float | None:
    """Returns the agreement of raters on prompts that several have seen; None where there is none, or no disagreement
    is possible."""
    place = {choice: number for number, choice in enumerate(CHOICES)}
    table = np.full((int(prompts.max()) + 1, len(raters)), np.nan)
    for vote, prompt in zip(own, prompts, strict=True):
        table[prompt, raters.index(vote.rater)] = place[vote.choice]
    if len(raters) < 2 or not (np.sum(~np.isnan(table), axis=1) > 1).any():
        return None
    alpha = statistics.krippendorff_alpha(table, metric="nominal")
    return None if np.isnan(alpha) else alpha
