"""How often a model's own answer is right: prompts -> greedy answers -> a check of each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from ftjax.verify import answers

Check = Callable[[Mapping[str, Any], str], float]


class Item(NamedTuple):
    """One question: the tokens that ask it, what the check needs, and texts to show."""

    prompt_ids: list[int]
    row: Mapping[str, Any]  # as it stands in the data: `messages`, and the columns that the check reads
    prompt: str
    reference: str


class Answer(NamedTuple):
    """What came back."""

    item: Item
    prediction: str
    score: float


def exact_match(row: Mapping[str, Any], prediction: str) -> float:
    """Returns 1 where the prediction is the reference answer, but for white space around it; else 0."""
    return float(prediction.strip() == str(row["messages"][-1]["content"]).strip())


def begins_with(row: Mapping[str, Any], prediction: str) -> float:
    """Returns 1 where the prediction begins with the reference answer, in upper or lower case; else 0."""
    wanted = str(row["messages"][-1]["content"]).strip().casefold()
    return float(prediction.strip().casefold().startswith(wanted))


def numeric(row: Mapping[str, Any], prediction: str) -> float:
    """Returns 1 where the last number of the prediction is that of the answer (GSM8K's "#### 72" too), else 0."""
    wanted = row.get("answer")
    wanted = row["messages"][-1]["content"] if wanted is None else wanted
    return float(answers.same_number(prediction, wanted))


def answer(
    complete: Callable[[Sequence[Sequence[int]]], list[str]], items: Sequence[Item], check: Check, *, batch_size: int
) -> list[Answer]:
    """Returns the scored answers in the order of the items; `complete` turns prompts into texts, a batch at a time."""
    texts = dict(completed(complete, [item.prompt_ids for item in items], batch_size=batch_size))
    return [Answer(item, texts[i], marked(check, item.row, texts[i])) for i, item in enumerate(items)]


def marked(check: Check, row: Mapping[str, Any], prediction: str) -> float:
    """Returns the mark that a check gives; raises TypeError where it gives no finite number."""
    mark = check(row, prediction)
    if not isinstance(mark, numbers.Real | np.number | np.bool_) or not (math.isfinite(mark) or check is unmarked):
        raise TypeError(f"it returned {mark!r:.80}, and a mark is a finite number, such as 0.0 or 1.0")
    return float(mark)


def unmarked(row: Mapping[str, Any], prediction: str) -> float:
    """Returns NaN: the answer is to be shown, not marked."""
    del row, prediction
    return math.nan


def completed(
    complete: Callable[[Sequence[Sequence[int]]], list[str]], prompts: Sequence[Sequence[int]], *, batch_size: int
) -> Iterator[tuple[int, str]]:
    """Yields the place of each prompt with its text, batch by batch, as soon as `complete` has made them.

    Prompts of similar length go together, and the last batch is filled up, so few programs are compiled.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        asked = [prompts[i] for i in chosen]
        made = complete(asked + [asked[-1]] * (min(batch_size, len(prompts)) - len(chosen)))
        yield from zip(chosen, made, strict=False)


def mean_score(answers: Sequence[Answer]) -> float:
    """Returns the mean score."""
    return sum(a.score for a in answers) / len(answers)
