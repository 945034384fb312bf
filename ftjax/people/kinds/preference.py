"""Which of two answers is better? The first, the second, neither (tie), both are bad, or skip, with a comment.

The payload is {"prompt": text or messages, "answers": [[system, text], [system, text]], "line": n}, in an order that
was drawn when the store was filled; systems never reach the page. Which of the two a rater sees first hangs on item and
rater, so a reload keeps it, and neither all raters nor all items have it alike.
"""

from collections.abc import Mapping
import hashlib
from typing import Any

from ftjax import errors
from ftjax.people import store as people_store
from ftjax.people.kinds import rating

CHOICES = ("1", "2", "tie", "both_bad", "skip")
NAMES = {"1": "answer 1", "2": "answer 2", "tie": "tie", "both_bad": "both bad", "skip": "skipped"}


def shown(
    item: people_store.Item, question: people_store.Question, rater: str, mine: dict[str, Any] | None
) -> dict[str, Any]:
    """Returns prompt and answers in the rater's order, and nothing of who wrote them."""
    del question, mine
    texts = [item.payload["answers"][place][1] for place in order(item.id, rater)]
    return {"number": item.payload["line"], "prompt": rating.turns(item.payload["prompt"]), "answers": texts}


def check(
    item: people_store.Item, question: people_store.Question, rater: str, answer: dict[str, Any]
) -> dict[str, Any]:
    """Returns {"choice", "place", "comment"}: what was pressed, and the place in the payload of the answer that is
    better, None where none is."""
    del question
    where = f"item {item.payload['line']}"
    note = rating.comment(answer, ("choice", "comment"), where)
    choice = answer.get("choice")
    if choice not in CHOICES:
        raise errors.UserError(f"{where}: choice {choice!r} must be one of {', '.join(CHOICES)}")
    place = order(item.id, rater)[int(choice) - 1] if choice in ("1", "2") else None
    return {"choice": choice, "place": place, "comment": note}


def counts(answer: Mapping[str, Any]) -> bool:
    """Tells whether the rater chose."""
    return answer["choice"] != "skip"


def labels(answer: Mapping[str, Any]) -> dict[str, str | float]:
    """Returns the choice, by the place of the answer in the payload."""
    return {"preference": answer["choice"] if answer["place"] is None else f"answer {answer['place']}"}


def metrics(question: people_store.Question) -> dict[str, str]:
    """Returns that choices have no order."""
    del question
    return {"preference": "nominal"}


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tells whether the same answer is better, whatever its place on the page."""
    return labels(one) == labels(other)


def line(item: people_store.Item) -> str:
    """Returns the end of the prompt."""
    return f"{rating.brief(rating.turns(item.payload['prompt'])[-1]['content'])} → which of two?"


def own(answer: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a rater reads of their answer in a list."""
    return {"choice": NAMES[answer["choice"]]}


def order(item: str, rater: str) -> tuple[int, int]:
    """Returns the places of the payload in the order in which a rater sees them.

    Of a hash without structure: CRC-32 is linear, so for two raters its lowest bits are equal on all items or on none.
    """
    first = hashlib.sha256(f"{item}\0{rater}".encode("utf-8", "replace")).digest()[0] % 2
    return (first, 1 - first)
