"""Bits are bought where they undo most harm, within the budget."""

import itertools
import random

import pytest

from ftjax.quant import budget


def choices(seed, weights=4):
    rng = random.Random(seed)
    sizes = (4, 8, 16)
    harm = lambda: sorted((rng.random(), rng.random(), 0.0), reverse=True)
    return {
        f"w{k}": {str(size): budget.Choice(size * 10, h) for size, h in zip(sizes, harm(), strict=True)}
        for k in range(weights)
    }


def total(found, taken):
    chosen = [found[weight][name] for weight, name in taken.items()]
    return sum(one.nbytes for one in chosen), sum(one.harm for one in chosen)


@pytest.mark.parametrize("seed", range(5))
def test_it_stays_within_the_budget_and_more_budget_never_ends_worse_than_the_smallest(seed):
    found = choices(seed)
    least = total(found, dict.fromkeys(found, "4"))
    for room in range(160, 641, 40):
        spent, harm = total(found, budget.greedy(found, room))
        assert spent <= room
        assert harm <= least[1]
    assert budget.greedy(found, 160) == dict.fromkeys(found, "4")
    assert budget.greedy(found, 640) == dict.fromkeys(found, "16")


@pytest.mark.parametrize("seed", range(5))
def test_it_is_near_to_the_best_of_all_ways(seed):
    found = choices(seed)
    room = 320
    ways = [dict(zip(found, names, strict=True)) for names in itertools.product(("4", "8", "16"), repeat=len(found))]
    best = min(harm for spent, harm in (total(found, way) for way in ways) if spent <= room)
    worst = total(found, dict.fromkeys(found, "4"))[1]
    assert total(found, budget.greedy(found, room))[1] <= best + 0.25 * (worst - best)


def test_a_choice_that_takes_more_and_harms_more_is_never_taken():
    found = {"w": {"good": budget.Choice(10, 0.1), "bad": budget.Choice(12, 0.2), "best": budget.Choice(20, 0.0)}}
    assert budget.greedy(found, 19) == {"w": "good"}
    assert budget.greedy(found, 20) == {"w": "best"}


def test_a_budget_below_the_smallest_is_refused():
    with pytest.raises(ValueError, match="60 bytes too many"):
        budget.greedy(choices(0), 100)
