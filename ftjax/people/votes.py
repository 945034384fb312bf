"""The answers of raters as rows: votes, ratings, preferences to train on, pairs for a judge, and who failed a check.

Skipped items, and attention checks, are in none of them. Of two systems `a` is the one that was named first.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ftjax.people import rating
from ftjax.people import store as people_store
from ftjax.people.kinds import rating as kind

Rows = list[dict[str, Any]]


class Attention(NamedTuple):
    """How a rater did on the attention checks."""

    passed: int
    failed: int
    skipped: int

    @property
    def flagged(self) -> bool:
        """Tells whether an answer to a check was wrong."""
        return self.failed > 0


def attention(store: people_store.Store) -> dict[str, Attention]:
    """Returns for each rater who has answered anything how they did on the checks."""
    return _attention({item.id: item for item in store.items()}, store.standing())


def _attention(items: Mapping[str, people_store.Item], given: Iterable[people_store.Answer]) -> dict[str, Attention]:
    found: dict[str, Attention] = {}
    for answer in given:
        before = found.setdefault(answer.rater, Attention(0, 0, 0))
        if rating.is_check(items[answer.item]):
            assert answer.body is not None
            name = "skipped" if not answer.counts else "failed"
            if answer.counts and rating.passed(items[answer.item], answer.body):
                name = "passed"
            found[answer.rater] = before._replace(**{name: getattr(before, name) + 1})
    return found


def votes(store: people_store.Store) -> Rows:
    """Returns each choice between two answers, in the order in which they were given: prompt, a, b, run_a, run_b,
    choice (a, b, tie, both_bad), rater, whether that is `flagged`, comment, item."""
    systems, found = store.about("systems"), []
    for item, answer, flagged in _given(store, "preference"):
        (first, one), (second, other) = item.payload["answers"]
        swapped = systems.index(first) > systems.index(second)
        place = answer.body["place"]
        choice = answer.body["choice"] if place is None else "ab"[place ^ swapped]
        sides = [(second, other), (first, one)] if swapped else [(first, one), (second, other)]
        found.append(
            {
                "prompt": item.payload["prompt"],
                **dict(zip(("a", "b"), (text for _, text in sides), strict=True)),
                **dict(zip(("run_a", "run_b"), (name for name, _ in sides), strict=True)),
                **{"choice": choice, "rater": answer.rater, "flagged": flagged},
                **{"comment": answer.body["comment"], "item": item.id, "time": answer.time},
            }
        )
    return found


def ratings(store: people_store.Store) -> Rows:
    """Returns each rating: prompt, answer, run, rater, whether that is `flagged`, a number an axis, comment, item."""
    return [
        {
            "prompt": item.payload["prompt"],
            "answer": item.payload["answers"][0][1],
            "run": item.payload["answers"][0][0],
            **{"rater": answer.rater, "flagged": flagged, **answer.body["scores"]},
            **{"comment": answer.body["comment"], "item": item.id, "row": item.payload["row"], "time": answer.time},
        }
        for item, answer, flagged in _given(store, "rating")
    ]


def preferences(given: Sequence[Mapping[str, Any]]) -> Rows:
    """Returns the pairs that training takes: prompt, chosen, rejected, and how many `votes` of how `many` say so.

    A pair enters where more than half of its votes are for one answer; a tie and both bad are votes for neither. An
    answer of white space, and two that are the same text, are no pair. All is in messages, as the answers were asked
    for, so that training puts the same template around them.
    """
    found = []
    for own in _by_item(given):
        one, many = own[0], len(own)
        for better, worse in ("ab", "ba"):
            ayes = sum(vote["choice"] == better for vote in own)
            if 2 * ayes > many and one["a"].strip() and one["b"].strip() and one["a"] != one["b"]:
                found.append(_pair(one["prompt"], one[better], one[worse]) | {"votes": ayes, "many": many})
    return found


def pairs(given: Sequence[Mapping[str, Any]]) -> Rows:
    """Returns what a judge is held against (configs/eval/judge.py): prompt, a, b, and all votes as `human`, where both
    bad is a tie."""
    return [
        {name: own[0][name] for name in ("prompt", "a", "b", "run_a", "run_b")}
        | {"human": [vote["choice"] if vote["choice"] in ("a", "b") else "tie" for vote in own]}
        for own in _by_item(given)
    ]


def _given(store: people_store.Store, asked: str) -> Iterable[tuple[people_store.Item, Any, bool]]:
    items, given = {item.id: item for item in store.items()}, store.standing()
    flagged = {rater for rater, one in _attention(items, given).items() if one.flagged}
    for answer in given:
        if answer.counts and items[answer.item].question == asked:
            yield items[answer.item], answer, answer.rater in flagged


def _by_item(given: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for vote in given:
        found.setdefault(vote["item"], []).append(vote)
    return list(found.values())


def _pair(prompt: Any, chosen: str, rejected: str) -> dict[str, Any]:
    said = lambda text: [{"role": "assistant", "content": text}]
    return {"prompt": kind.turns(prompt), "chosen": said(chosen), "rejected": said(rejected)}
