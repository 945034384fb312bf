"""What a judge's verdicts say: who wins how surely, how far the judge can be trusted, and whether people agree."""

from collections import Counter
from collections.abc import Mapping, Sequence
import math
from typing import Any
import warnings

import numpy as np

from ftjax.data import pairs
from ftjax.errors import UserError
from ftjax.evals import corrected, judge, statistics

SCORES = {"a": 1.0, "tie": 0.5, "b": 0.0}


def report(
    found: Sequence[pairs.Pair], judged: Sequence[judge.Judged], *, level: float, resamples: int, seed: int
) -> dict[str, Any]:
    """Returns the numbers of a judged file, as JSON takes them; every interval is at `level`.

    Pairs of one prompt are not independent: all intervals are those of clusters. UserError where no pair has a verdict.
    """
    if len(found) != len(judged):
        raise ValueError(f"report: {len(found)} pairs and {len(judged)} results")
    known = [(pair, one) for pair, one in zip(found, judged, strict=True) if one.winner is not None]
    if not known:
        raise UserError(
            f"the judge gave no verdict on any of {len(judged)} pairs; look at its answers in judgments.jsonl, and "
            "give it more config.judge.max_tokens or another model"
        )
    scores = np.array([SCORES[str(one.winner)] for _, one in known])
    prompts = _numbers([pair.prompt for pair, _ in known])
    won = Counter(one.winner for _, one in known)
    answers = [x for one in judged for x in (*one.verdicts, *one.ratings)]
    rated = any(one.ratings for one in judged)
    return {
        "pairs": len(judged),
        "judged": len(known),
        "unparsable_pairs": len(judged) - len(known),
        "unparsable_answers": sum(x is None for x in answers),
        "answers": len(answers),
        "wins": won["a"],
        "ties": won["tie"],
        "losses": won["b"],
        "win_rate": _share(scores, prompts, level),
        "ratings": _ratings([one for _, one in known], prompts, level, resamples, seed) if rated else None,
        "position": None if rated else position(judged, _numbers([pair.prompt for pair in found]), level=level),
        "length": _length(known, scores, prompts, level),
        "human": people(known, level=level),
    }


def position(judged: Sequence[judge.Judged], prompts: np.ndarray, *, level: float) -> dict[str, Any]:
    """Returns what swapping the answers changes: the row of MT-bench's table 2, flips, and who stands first.

    A pair is consistent where both orders say the same, else biased towards the first or second place; with those that
    have no verdict these shares make 1. `flip_rate` is the share of pairs with both verdicts where the two differ,
    `reversals` those where both orders name another winner. `first_preferred` is over verdicts that are no ties.
    `prompts` numbers the prompts of the pairs.
    """
    whole = np.array([None not in one.verdicts for one in judged])
    both = [one.verdicts for one in judged if None not in one.verdicts]
    lean = np.array([_for_first(one, "a") + _for_first(other, "b") for one, other in both])
    single = [(_for_first(x, first), n) for n, pair in enumerate(both) for x, first in zip(pair, "ab", strict=True)]
    decided = np.array([(side + 1) / 2 for side, _ in single if side])
    of_pair = prompts[whole][np.array([n for side, n in single if side], dtype=np.int64)]
    share = lambda count: float(count) / len(judged)
    return {
        "consistent": share(np.sum(lean == 0)),
        "biased_to_first": share(np.sum(lean > 0)),
        "biased_to_second": share(np.sum(lean < 0)),
        "unparsable": share(len(judged) - len(both)),
        "flip_rate": _share((lean != 0) * 1.0, prompts[whole], level),
        "reversals": int(np.sum(np.abs(lean) == 2)),
        "first_preferred": _share(decided, of_pair, level),
    }


def _for_first(verdict: str | None, first: str) -> int:
    """Returns 1 where a verdict is for the answer that stands first, -1 for the other, 0 for a tie."""
    return 0 if verdict == "tie" else 1 if verdict == first else -1


def people(known: Sequence[tuple[pairs.Pair, judge.Judged]], *, level: float) -> dict[str, Any] | None:
    """Returns how far people agree with the judge and with each other; None where nobody has voted.

    `agreement` is with a random vote of each pair, `without_ties` over votes and verdicts that are none (MT-bench's two
    setups), `with_majority` with the label most votes have, `kappa` Cohen's with it (NaN where no pair has such a
    label). `between_people` is for two random votes of one pair.
    """
    prompts = _numbers([pair.prompt for pair, _ in known])
    voted = [(pair.human, str(one.winner), n) for (pair, one), n in zip(known, prompts, strict=True) if pair.human]
    if not voted:
        return None
    same = [(np.mean([vote == winner for vote in votes]), n) for votes, winner, n in voted]
    decided = [([v for v in votes if v != "tie"], winner, n) for votes, winner, n in voted if winner != "tie"]
    strict = [(np.mean([v == winner for v in votes]), n) for votes, winner, n in decided if votes]
    majority = [(top, winner, n) for votes, winner, n in voted if (top := of_majority(votes))]
    agreed = [(float(top == winner), n) for top, winner, n in majority]
    several = [(_pairwise_agreement(votes), n) for votes, _, n in voted if len(votes) > 1]
    wins = Counter(top for top, *_ in majority)
    human = np.array([{"a": 1.0, "b": 0.0}.get(of_majority(pair.human) or "", np.nan) for pair, _ in known])
    scores = np.array([SCORES[str(one.winner)] for _, one in known])
    fixed = corrected.rogan_gladen(scores, human, prompts, level=level)
    share = lambda values: _share(np.array([x for x, _ in values]), np.array([n for _, n in values]), level)
    return {
        "pairs": len(voted),
        "votes": sum(len(votes) for votes, *_ in voted),
        "agreement": share(same),
        "agreement_without_ties": share(strict),
        "agreement_with_majority": share(agreed),
        "without_majority": len(voted) - len(majority),
        "kappa": _kappa(majority, level)._asdict(),
        "between_people": share(several),
        "win_rate_by_people": (wins["a"] + wins["tie"] / 2) / len(majority) if majority else None,
        "corrected_win_rate": None if fixed is None else fixed._asdict(),
    }


def _kappa(labels: Sequence[tuple[str, str, int]], level: float) -> statistics.Interval:
    """Returns Cohen's kappa of two labels each; its interval is widened by how much more the pairs of a prompt, the
    third number, vary together than they would apart, in what each of them adds to the linearised kappa."""
    if not labels:
        return statistics.Interval(math.nan, math.nan, math.nan)
    one, other = [label for label, *_ in labels], [label for _, label, _ in labels]
    found = statistics.cohen_kappa(one, other, level=level)
    of_one, of_other, count = Counter(one), Counter(other), len(labels)
    same = np.array(one) == np.array(other)
    chance = sum(of_one[label] * of_other[label] for label in of_one) / count**2
    by_chance = np.array([(of_other[x] + of_one[y]) / count for x, y in zip(one, other, strict=True)])
    drawn = (same - same.mean()) * (1 - chance) - (1 - same.mean()) * (by_chance - 2 * chance)
    place = np.unique([prompt for *_, prompt in labels], return_inverse=True)[1]
    clusters = int(place.max()) + 1
    apart, together = float(np.sum(drawn**2)), float(np.sum(np.bincount(place, drawn) ** 2))
    if math.isnan(found.value) or clusters == count:
        return found
    if clusters == 1:
        return statistics.Interval(found.value, -1.0, 1.0)
    wider = math.sqrt(max(together * clusters / (clusters - 1) / apart, 1.0)) if apart else 1.0
    low, high = (found.value + wider * (end - found.value) for end in (found.low, found.high))
    return statistics.Interval(found.value, max(low, -1.0), min(high, 1.0))


def of_majority(votes: Sequence[str]) -> str | None:
    """Returns the vote that most have given; None without votes, or where the most are several."""
    ranked = Counter(votes).most_common(2)
    return None if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]) else ranked[0][0]


def _pairwise_agreement(votes: Sequence[str]) -> float:
    counts = Counter(votes).values()
    return sum(n * (n - 1) for n in counts) / (len(votes) * (len(votes) - 1))


def _length(
    known: Sequence[tuple[pairs.Pair, judge.Judged]], scores: np.ndarray, prompts: np.ndarray, level: float
) -> dict[str, Any]:
    """Returns how often the answer with more characters wins, and the correlation of the differences."""
    longer = np.array([len(pair.a) - len(pair.b) for pair, _ in known], np.float64)
    decided = (longer != 0) & (scores != 0.5)
    right = ((longer > 0) == (scores > 0.5))[decided] * 1.0
    return {
        "longer_wins": _share(right, prompts[decided], level),
        "spearman": statistics.spearman(longer, scores),
    }


def _ratings(
    judged: Sequence[judge.Judged], prompts: np.ndarray, level: float, resamples: int, seed: int
) -> dict[str, Any]:
    a, b = np.array([one.ratings for one in judged], np.float64).T
    with warnings.catch_warnings():  # `of` is told beside it
        warnings.simplefilter("ignore", statistics.FewValues)
        found = statistics.paired_bootstrap(b, a, prompts, level=level, resamples=resamples, seed=seed)
    return {"a": float(a.mean()), "b": float(b.mean()), "difference": found._asdict()}


def _share(values: np.ndarray, clusters: np.ndarray | None, level: float) -> dict[str, Any] | None:
    """Returns a share with its interval, of values that belong together by `clusters`; None of no values."""
    return statistics.share(values, clusters, level=level)._asdict() if len(values) else None


def _numbers(texts: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(texts, dtype=object), return_inverse=True)[1]


def in_words(found: Mapping[str, Any], *, a: str, b: str) -> str:
    """Returns the verdict on a file in one sentence, with what speaks against the judge."""
    rate, ends = found["win_rate"]["value"], (found["win_rate"]["low"], found["win_rate"]["high"])
    shown = (
        f"{a} wins {rate:.1%} of {found['judged']} pairs against {b} ({ends[0]:.1%} to {ends[1]:.1%}; a tie is half)"
    )
    decided = ends[0] > 0.5 or ends[1] < 0.5
    place = found["position"]
    doubt = f"; {place['flip_rate']['value']:.0%} of the verdicts change when the answers swap places" if place else ""
    return f"{shown if decided else f'undecided: {shown}'}{doubt}"
