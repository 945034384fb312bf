"""What the answers of raters say so far: agreement, who is preferred and how surely, and how many more would settle it.

Raters, and whoever watches, look while votes come in. So what settles a question is `evals.sequential.always_valid`,
whose p may be looked at after every vote: against one half, with the variance of a vote (.25) and a spread of .1. Its
values are prompts, which are drawn apart, not votes, which are not: a prompt enters when it has all the answers that
it wants, as the mean of its votes (the later system preferred 1, tie and both bad .5). Of an axis the value is 1, .5 or
0 by which system has the higher mean on the prompt. Means of votes vary less than .25, so p is on the safe side.

That p never rises, so it may speak for a side that is no longer ahead. Who is ahead is therefore who was at the prompt
at which p fell to .05: the errors of the test are of that choice. Where the share lies on the other side (or at one
half) now, the votes have `turned`. No one share is likely to give that, so the test has answered a question that did
not stand, and nothing is settled.
"""

from collections.abc import Collection, Mapping, Sequence
import itertools
from typing import Any, NamedTuple
import warnings

import numpy as np

from ftjax.evals import sequential, statistics
from ftjax.people import agreement, rating, votes
from ftjax.people import store as people_store
from ftjax.people.kinds import rating as kind

LEVEL, POWER = 0.95, 0.8
VARIANCE, SPREAD = 0.25, 0.1
RESAMPLES, SEED = 2000, 0
EARLY = 10  # prompts; with fewer, the share says too little to reckon on
FARTHEST = 20_000  # prompts that are reckoned ahead
_WINS = {"a": 0.0, "b": 1.0, "tie": 0.5, "both_bad": 0.5}
PREFERENCE = "preference"


class Standing(NamedTuple):
    """How far a question between two systems is from being settled.

    `share` is of the later system `b` over the `done` prompts of `prompts`, which want `left` ratings still; `more` is
    how many would settle it if the share stayed as it is: 0 where it is settled, None where it is too early to say or
    where no number would. `detectable` is the least share above one half that all prompts, looked at once, would find
    with power .8. `found` is the system for which p fell to .05, None where it has not, and `after` how many prompts it
    did.
    """

    measure: str
    a: str
    b: str
    done: int
    prompts: int
    share: float | None
    p: float
    left: int
    more: int | None
    detectable: float | None
    found: str | None
    after: int | None

    @property
    def turned(self) -> bool:
        """Tells whether the share is no longer on the side of who was found to be ahead."""
        return self.found is not None and self.share is not None and not _ahead_by(self.share, self.found == self.b)

    @property
    def settled(self) -> bool:
        """Tells whether the question is answered."""
        return self.found is not None and not self.turned


def measured(store: people_store.Store) -> list[dict[str, Any]]:
    """Returns the agreement of raters on each axis and on preferences, by system and without attention checks, as
    `agreement.table` does."""
    return _measured(store.about("asks"), votes.votes(store), votes.ratings(store))


def _measured(
    asks: Sequence[str], given: Sequence[Mapping[str, Any]], rated: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    found = []
    if "preference" in asks:
        labels: agreement.Labels = {}
        for vote in given:
            chosen = {"a": vote["run_a"], "b": vote["run_b"]}.get(vote["choice"], f"({vote['choice']})")
            labels.setdefault(vote["item"], {})[vote["rater"]] = chosen
        found.append(
            {"question": "preference", "label": PREFERENCE, "metric": "nominal"}
            | agreement.of(labels, metric="nominal")
        )
    if "rating" in asks:
        for axis in kind.AXES:
            labels = {}
            for one in rated:
                labels.setdefault(one["item"], {})[one["rater"]] = one[axis["name"]]
            found.append(
                {"question": "rating", "label": axis["name"], "metric": "ordinal"}
                | agreement.of(labels, metric="ordinal")
            )
    return found


def standings(store: people_store.Store, *, flagged: str) -> list[Standing]:
    """Returns how far each question is: preference and each axis, of each two systems.

    `flagged` says what becomes of raters who failed a check: keep or drop. Answers of the dropped fill their places,
    for nobody is asked in their stead, but are in no value.
    """
    dropped = {rater for rater, one in votes.attention(store).items() if one.flagged and flagged == "drop"}
    items = [item for item in store.items() if not rating.is_check(item)]
    given: dict[str, list[people_store.Answer]] = {}
    for answer in store.standing():
        if answer.counts:
            given.setdefault(answer.item, []).append(answer)
    found = []
    systems = store.about("systems")
    for a, b in itertools.combinations(systems, 2):
        for measure, sides in _measures(items, a, b):
            found.append(_standing(measure, a, b, sides, given, dropped))
    return found


def _measures(
    items: Sequence[people_store.Item], a: str, b: str
) -> list[tuple[str, list[tuple[people_store.Item, ...]]]]:
    """Returns each measure with the items of each prompt that it takes: the comparison, or the ratings of a and b."""
    compared: list[tuple[people_store.Item, ...]] = []
    rated: dict[int, dict[str, people_store.Item]] = {}
    for item in items:
        names = [name for name, _ in item.payload["answers"]]
        if item.question == "preference" and set(names) == {a, b}:
            compared.append((item,))
        elif item.question == "rating" and names[0] in (a, b):
            rated.setdefault(item.payload["row"], {})[names[0]] = item
    twos: list[tuple[people_store.Item, ...]] = [(two[a], two[b]) for two in rated.values()]
    axes = [(axis["name"], twos) for axis in kind.AXES] if twos else []
    return [*([(PREFERENCE, compared)] if compared else []), *axes]


def _standing(
    measure: str,
    a: str,
    b: str,
    prompts: Sequence[tuple[people_store.Item, ...]],
    given: Mapping[str, Sequence[people_store.Answer]],
    dropped: Collection[str],
) -> Standing:
    values: list[tuple[int, float]] = []
    full = 0
    begun = 0  # answers to prompts that are not done, no more than are wanted
    for items in prompts:
        answers = [given.get(item.id, ()) for item in items]
        if all(len(own) >= item.wanted for item, own in zip(items, answers, strict=True)):
            full += 1
            last = max(own[item.wanted - 1].number for item, own in zip(items, answers, strict=True))
            kept = [[answer for answer in own if answer.rater not in dropped] for own in answers]
            if all(kept):
                values.append((last, _value(measure, items, kept, b)))
        else:
            begun += sum(min(len(own), item.wanted) for item, own in zip(items, answers, strict=True))
    each = np.array([value for _, value in sorted(values)])
    wanted = sum(item.wanted for item in prompts[0])
    share = float(each.mean()) if len(each) else None
    p = float(_p(each)[-1]) if len(each) else 1.0
    after = _after(each)
    found = None if after is None else b if _ahead_by(float(each[:after].mean()), True) else a
    ahead = prompts_ahead(each)
    more = ahead and max(ahead * wanted - begun, 1)
    test = {"against": 0.5, "alpha": 1 - LEVEL, "power": POWER}
    least = statistics.minimum_detectable_effect(len(prompts), **test)
    detectable = None if np.isnan(least) else 0.5 + least
    left = (len(prompts) - full) * wanted - begun
    return Standing(measure, a, b, len(each), len(prompts), share, p, left, more, detectable, found, after)


def prompts_ahead(values: np.ndarray) -> int | None:
    """Returns how many prompts more would settle it if each had the mean of these: 0 where it is settled, None where
    it is too early to say or where none would, because they are even or have turned."""
    after = _after(values)
    if after is not None:
        stayed = _ahead_by(float(values.mean()), float(values[:after].mean()) > 0.5)
        return 0 if stayed else None
    if len(values) < EARLY:
        return None
    settled = _p(np.concatenate([values, np.full(FARTHEST, values.mean())]))[len(values) :] <= 1 - LEVEL
    return int(settled.argmax()) + 1 if settled.any() else None


def _after(values: np.ndarray) -> int | None:
    """Returns after how many values p has fallen to .05; None where it has not."""
    found = _p(values) <= 1 - LEVEL
    return int(found.argmax()) + 1 if found.any() else None


def _ahead_by(share: float, later: bool) -> bool:
    """Tells whether a share of the later system puts it, or else the earlier one, ahead."""
    return share > 0.5 if later else share < 0.5


def _p(values: np.ndarray) -> np.ndarray:
    return sequential.always_valid(values, against=0.5, variance=VARIANCE, spread=SPREAD)


def _value(
    measure: str, items: Sequence[people_store.Item], answers: Sequence[Sequence[people_store.Answer]], b: str
) -> float:
    if measure == PREFERENCE:
        names = [name for name, _ in items[0].payload["answers"]]
        bodies = [answer.body or {} for answer in answers[0]]
        return float(np.mean([0.5 if body["place"] is None else names[body["place"]] == b for body in bodies]))
    first, second = (np.mean([(answer.body or {})["scores"][measure] for answer in own]) for own in answers)
    return float(np.sign(second - first) / 2 + 0.5)


def news(store: people_store.Store) -> tuple[str, ...]:
    """Returns lines that raters may read, of nobody's name: how many more ratings would settle each measure."""
    by_measure: dict[str, list[Standing]] = {}
    for one in standings(store, flagged="keep"):  # raters do not read who has failed a check
        by_measure.setdefault(one.measure, []).append(one)
    lines: dict[str, list[str]] = {}  # what is said of several measures is said once
    for measure, own in by_measure.items():
        done, prompts = sum(one.done for one in own), sum(one.prompts for one in own)
        lines.setdefault(f"{done:,} of {prompts:,} prompts have their answers; {_together(own)}.", []).append(measure)
    return tuple(f"{', '.join(measures)}: {text}" for text, measures in lines.items())


def _together(own: Sequence[Standing]) -> str:
    if all(one.settled for one in own):
        return "settled"
    if any(one.turned for one in own):
        return "the votes have turned since it seemed settled; more of them do not settle it"
    open_ones = [one for one in own if not one.settled]
    if any(one.prompts < EARLY for one in open_ones):
        return f"fewer than {EARLY} prompts settle nothing; add prompts"
    if any(one.done < EARLY for one in open_ones):
        return f"too early to say how many would settle it (from {EARLY} prompts on)"
    if any(one.more is None for one in open_ones):
        return "as even as it is, no number of ratings would settle it"
    return _ahead(sum(one.more or 0 for one in open_ones), sum(one.left for one in open_ones))


def _ahead(more: int, left: int) -> str:
    told = f"about {more:,} more rating{'s' * (more > 1)} would settle it if it goes on like this"
    return told if more <= left else f"{told}, which is more than the {left:,} that these prompts still want"


def in_words(one: Standing) -> str:
    """Returns a sentence with names and numbers, for who runs the evaluation."""
    head = f"{one.measure}, {one.b} against {one.a}: {one.done:,} of {one.prompts:,} prompts"
    if one.share is None:
        return f"{head}; {_plan(one)}"
    head = f"{head}, share of {one.b} {one.share:.2f}"
    if one.turned:
        return (
            f"{head}: undecided; after {one.after:,} prompts {one.found} was ahead (p .05), and the votes have turned "
            "since. One share for all prompts does not give that: look at who voted when, and on which prompts"
        )
    told = f"{head}, p {one.p:.3f} at any time"
    if one.settled:
        return f"{told}: settled, {one.found} is ahead"
    if one.done < EARLY:
        return f"{told}: too early; {_plan(one)}"
    if one.more is None:
        return f"{told}: even; {_plan(one)}"
    alone = statistics.sample_size(one.share, against=0.5, alpha=1 - LEVEL, power=POWER)
    return (
        f"{told}: {_ahead(one.more, one.left)} (an evaluation of fixed size would take {alone:,} prompts, power "
        f"{POWER:g}); {_plan(one)}"
    )


def _plan(one: Standing) -> str:
    if one.detectable is None or one.prompts < EARLY:
        return f"{one.prompts:,} prompts are too few to find any share"
    return f"all {one.prompts:,} prompts, looked at once, find a share from {one.detectable:.2f} on (power {POWER:g})"


def report(store: people_store.Store, *, flagged: str) -> dict[str, Any]:
    """Returns all of it, JSON-ready. `flagged` says what becomes of raters who failed a check: keep or drop."""
    kept = lambda rows: [row for row in rows if flagged == "keep" or not row["flagged"]]
    given, rated = votes.votes(store), votes.ratings(store)
    attention = votes.attention(store)
    return {
        "systems": store.about("systems"),
        "attention": {rater: {**one._asdict(), "flagged": one.flagged} for rater, one in attention.items()},
        "flagged": flagged,
        "preferences": _preferred(kept(given)),
        "axes": _axes(kept(rated), store.about("systems")),
        "agreement": _measured(store.about("asks"), kept(given), kept(rated)),
        "standings": [one._asdict() for one in standings(store, flagged=flagged)],
    }


def _preferred(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    twos: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for vote in given:
        twos.setdefault((vote["run_a"], vote["run_b"]), []).append(vote)
    found = []
    for (a, b), own in sorted(twos.items()):
        clusters = np.unique([vote["item"] for vote in own], return_inverse=True)[1]
        share = statistics.share(np.array([_WINS[vote["choice"]] for vote in own]), clusters, level=LEVEL)
        choices = {choice: sum(vote["choice"] == choice for vote in own) for choice in _WINS}
        found.append({"a": a, "b": b, "choices": choices, "share_of_b": share._asdict()})
    return found


def _axes(rated: Sequence[Mapping[str, Any]], systems: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for axis in kind.AXES:
        means: dict[str, dict[int, float]] = {}
        for system in systems:
            rows: dict[int, list[int]] = {}
            for one in rated:
                if one["run"] == system:
                    rows.setdefault(one["row"], []).append(one[axis["name"]])
            means[system] = {row: float(np.mean(scores)) for row, scores in rows.items()}
        if not any(means.values()):
            continue
        differences = []
        for a, b in itertools.combinations(systems, 2):
            shared = sorted(means[a].keys() & means[b].keys())
            if shared:
                sides = [np.array([means[name][row] for row in shared]) for name in (a, b)]
                with warnings.catch_warnings():  # `of` is told beside it
                    warnings.simplefilter("ignore", statistics.FewValues)
                    gap = statistics.paired_bootstrap(*sides, level=LEVEL, resamples=RESAMPLES, seed=SEED)
                ends = {name: agreement.number(x) for name, x in gap._asdict().items()}
                differences.append({"a": a, "b": b, **ends, "of": gap.of})
        rated_ones = [(name, own) for name, own in means.items() if own]
        told = {name: {"mean": float(np.mean([*own.values()])), "prompts": len(own)} for name, own in rated_ones}
        found.append({"axis": axis["name"], "systems": told, "differences": differences})
    every = [gap for one in found for gap in one["differences"]]
    for gap, p in zip(every, statistics.holm([gap["p"] for gap in every]), strict=True):
        gap["p_corrected"] = float(p)
    return found
