"""How far raters agree, beyond chance, on what more than one of them has answered blind.

Answers that settle a disagreement are left out: whoever gave them had seen the others.
"""

from collections.abc import Iterable
import itertools
import math
from typing import Any

import numpy as np

from ftjax import lookup
from ftjax.evals import statistics
from ftjax.people import store as people_store

LEVEL = 0.95
Labels = dict[str, dict[str, str | float]]  # item -> rater -> label


def table(store: people_store.Store) -> list[dict[str, Any]]:
    """Returns the agreement on each label, JSON-ready: Krippendorff's alpha of all, Fleiss' kappa where every item has
    as many answers, Cohen's kappa of each two raters with its interval; None where a number does not exist."""
    found = []
    for question in store.questions().values():
        kind = lookup.module("ftjax.people.kinds", question.kind)
        given = store.standing_to(question.id)
        for label, metric in kind.metrics(question).items():
            labels: Labels = {}
            for answer in given:
                if answer.counts and not answer.settles and label in (said := kind.labels(answer.body)):
                    labels.setdefault(answer.item, {})[answer.rater] = said[label]
            found.append({"question": question.id, "label": label, "metric": metric, **of(labels, metric=metric)})
    return found


def of(labels: Labels, *, metric: str) -> dict[str, Any]:
    """Returns the agreement of raters on one label."""
    shared = {item: said for item, said in labels.items() if len(said) > 1}
    raters = sorted({rater for said in shared.values() for rater in said})
    made: dict[str, Any] = {"items": len(shared), "raters": raters, "same": None, "alpha": None, "fleiss": None}
    made["pairs"] = list(_pairs(shared, raters))
    if not shared:
        return made
    made["same"] = sum(len(set(said.values())) == 1 for said in shared.values()) / len(shared)
    values = sorted(
        {value for said in shared.values() for value in said.values()}, key=lambda one: (str(type(one)), one)
    )
    numbers = {value: n if isinstance(value, str) else float(value) for n, value in enumerate(values)}
    ratings = np.full((len(shared), len(raters)), np.nan)
    column = {rater: n for n, rater in enumerate(raters)}
    for row, said in enumerate(shared.values()):
        for rater, value in said.items():
            ratings[row, column[rater]] = numbers[value]
    made["alpha"] = number(statistics.krippendorff_alpha(ratings, metric=metric))
    sizes = {len(said) for said in shared.values()}
    if len(sizes) == 1:
        packed = np.array([[numbers[value] for value in said.values()] for said in shared.values()])
        made["fleiss"] = number(statistics.fleiss_kappa(packed))
    return made


def _pairs(shared: Labels, raters: Iterable[str]) -> Iterable[dict[str, Any]]:
    for one, other in itertools.combinations(raters, 2):
        both = [(said[one], said[other]) for said in shared.values() if one in said and other in said]
        if both:
            same = sum(first == second for first, second in both) / len(both)
            kappa = statistics.cohen_kappa(*zip(*both, strict=True), level=LEVEL)
            numbers = {name: number(value) for name, value in kappa._asdict().items()}
            yield {"raters": [one, other], "items": len(both), "same": same, "kappa": numbers.pop("value"), **numbers}


def conflicts(store: people_store.Store) -> list[dict[str, Any]]:
    """Returns the items on which raters differ and that have as many answers as are wanted: {"item", "settled"}, the
    name of who settled it or None, in the order of the store."""
    kinds = {name: lookup.module("ftjax.people.kinds", one.kind) for name, one in store.questions().items()}
    found = []
    for item, asked, full, answers in store.together():
        agree = kinds[asked].agree
        blind = [one for one in answers if one.counts and not one.settles]
        if full and any(not agree(one.body, other.body) for one, other in itertools.combinations(blind, 2)):
            settled = [one.rater for one in answers if one.settles]
            found.append({"item": item, "settled": settled[-1] if settled else None})
    return found


def number(value: float) -> float | None:
    """Returns the number, and None where there is none: JSON has no NaN."""
    return float(value) if math.isfinite(value) else None
