"""How far an evaluation is: what settles it may be looked at at any time, and how many ratings more would."""

import re

import numpy as np
import pytest

from ftjax.evals import sequential
from ftjax.people import verdicts
from tests import rated

COUNT = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("verdicts")


@pytest.fixture
def voted(folder, request):
    """Returns a function: choices of prompts by one rater, and how many are wanted -> the store."""
    made = []

    def vote(choices, *, ratings=1, raters=("Anna",)):
        path = f"{request.node.name}-{len(made)}.sqlite".replace("[", "-").replace("]", "")
        store = rated.opened(folder, count=COUNT, asks=("preference",), ratings=ratings, store=path)
        made.append(store)
        rated.join(store, *raters)
        items = sorted(store.items(), key=lambda item: item.payload["row"])
        for item, choice in zip(items, choices, strict=False):
            for rater in raters:
                rated.choose(store, item, rater, choice)
        return store

    yield vote
    for store in made:
        store.close()


def standing(store):
    (found,) = verdicts.standings(store, flagged="keep")
    return found


def test_a_clear_preference_is_settled_at_the_p_of_always_valid(voted):
    store = voted(["Blue"] * 40)
    found = standing(store)
    values = np.ones(40)
    assert found.p == pytest.approx(sequential.always_valid(values, against=0.5, variance=0.25, spread=0.1)[-1])
    assert (found.done, found.prompts, found.share, found.more, found.settled) == (40, COUNT, 1.0, 0, True)
    assert verdicts.news(store) == ("preference: 40 of 120 prompts have their answers; settled.",)
    assert verdicts.in_words(found).endswith("settled, yak-tuned is ahead")


def test_as_many_ratings_as_are_told_settle_it_and_one_less_does_not(voted):
    choices = ["Blue", "Blue", "Red"] * 5 + ["Blue"]
    store = voted(choices)
    found = standing(store)
    share = found.share
    assert share == pytest.approx(11 / 16)
    assert found.more > 20
    values = np.array([1, 1, 0] * 5 + [1], float)
    p = lambda more: sequential.always_valid(
        np.concatenate([values, np.full(more, share)]), against=0.5, variance=0.25, spread=0.1
    )[-1]
    assert p(found.more) <= 0.05 < p(found.more - 1)
    words = f"about {found.more} more ratings would settle it if it goes on like this"
    assert verdicts.news(store) == (f"preference: 16 of 120 prompts have their answers; {words}.",)


def test_twice_as_many_are_wanted_where_two_rate_an_item_less_those_that_are_there(voted):
    choices = ["Blue", "Blue", "Red"] * 5 + ["Blue"]
    alone = standing(voted(choices)).more
    two = voted(choices, ratings=2, raters=("Anna", "Ben"))
    assert standing(two).more == 2 * alone
    item = next(item for item in two.items() if item.payload["row"] == 20)
    rated.choose(two, item, "Ben", "Red")
    assert standing(two).done == 16  # a prompt counts when it has all its votes
    assert standing(two).more == 2 * alone - 1
    assert standing(two).left == 2 * (COUNT - 16) - 1


def test_too_few_prompts_say_nothing_and_even_ones_never_settle_it(voted):
    assert standing(voted(["Blue"] * 9)).more is None
    early = verdicts.news(voted(["Blue"] * 9))[0]
    assert early.endswith("too early to say how many would settle it (from 10 prompts on).")
    for choices in (["Blue", "Red"] * 8, ["tie"] * 16, ["both_bad", "tie"] * 8):
        found = standing(voted(choices))
        assert (found.share, found.more, found.settled) == (0.5, None, False)
    assert "no number of ratings would settle it" in verdicts.news(voted(["tie"] * 16))[0]


def test_more_than_these_prompts_have_is_said(voted):
    store = voted(["Blue", "Blue", "Red", "Blue", "Red", "Red", "Blue"] * 5)
    found = standing(store)
    assert found.more > found.left == COUNT - 35
    assert verdicts.news(store)[0].endswith("which is more than the 85 that these prompts still want.")


def test_raters_read_no_name_and_no_share(voted):
    for choices in (["Blue"] * 40, ["Blue", "Blue", "Red"] * 6, []):
        for line in verdicts.news(voted(choices)):
            assert not re.search(r"zebra|yak|0\.\d|ahead", line)


def test_what_was_taken_back_and_what_was_skipped_does_not_count(voted):
    store = voted(["Blue"] * 12 + ["skip"] * 5)
    assert standing(store).done == 12
    store.undo("Anna", key="k")  # the last skip
    for n in range(5):
        store.undo("Anna", key=f"k{n}")
    assert standing(store).done == 11


def test_on_an_axis_a_prompt_counts_for_who_has_the_higher_mean(folder):
    with rated.opened(folder, count=12, asks=("rating",), ratings=2, store="axes.sqlite") as store:
        rated.join(store, "Anna", "Ben")
        for item in store.items():
            name, row = item.payload["answers"][0][0], item.payload["row"]
            tuned = name == rated.NAMES[1]
            for rater, more in (("Anna", 0), ("Ben", 1)):
                accuracy = 3 + more if tuned and row < 9 else 2 + more
                rated.answer(store, item, rater, rated.scores(accuracy, 5 if tuned and row == 0 else 4))
        found = {one.measure: one for one in verdicts.standings(store, flagged="keep")}
    assert set(found) == set(rated.AXES)
    assert found["accuracy"].share == pytest.approx((9 + 0.5 * 3) / 12)
    assert found["safety"].share == pytest.approx((1 + 0.5 * 11) / 12)
    assert found["accuracy"].done == 12
    assert found["accuracy"].left == 0


@pytest.mark.parametrize("later", [45, 60])  # at 60 the share lies so far on the other side that it alone would do
def test_votes_that_turn_after_a_side_was_found_settle_nothing_and_it_is_said_for_whom_they_were(voted, later):
    store = voted(["Blue"] * 30 + ["Red"] * later)
    found = standing(store)
    first = sequential.always_valid(np.ones(30), against=0.5, variance=0.25, spread=0.1)
    assert (found.p, found.found) == (pytest.approx(first[-1]), "yak-tuned")
    assert first[found.after - 1] <= 0.05 < first[found.after - 2]
    assert found.share < 0.5
    assert (found.settled, found.turned, found.more) == (False, True, None)
    words = verdicts.in_words(found)
    assert f"undecided; after {found.after} prompts yak-tuned was ahead (p .05), and the votes have turned" in words
    assert "settled" not in words
    assert "0.000" not in words
    assert verdicts.news(store)[0].endswith("turned since it seemed settled; more of them do not settle it.")
    even = standing(voted(["Red"] * 30 + ["Blue"] * 30))
    assert (even.share, even.found, even.settled, even.turned) == (0.5, "zebra-untouched", False, True)


def test_who_was_found_stays_ahead_while_the_share_stays_on_that_side(voted):
    found = standing(voted(["Red"] * 30 + ["Blue"] * 25))
    assert (found.found, found.settled, found.turned, found.more) == ("zebra-untouched", True, False, 0)
    assert verdicts.in_words(found).endswith("settled, zebra-untouched is ahead")


def test_a_look_after_every_prompt_finds_a_preference_that_is_none_in_at_most_5_percent():
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 2, (1000, COUNT, 2)).mean(axis=2)  # two raters without a preference
    p = sequential.always_valid(votes, against=0.5, variance=verdicts.VARIANCE, spread=verdicts.SPREAD)
    assert (p[:, -1] <= 0.05).mean() <= 0.05


def test_half_of_the_forecasts_are_near_what_it_takes_and_nearer_the_later_they_are_made():
    votes = np.random.default_rng(0).binomial(2, 0.65, (400, 1500)) / 2
    p = sequential.always_valid(votes, against=0.5, variance=verdicts.VARIANCE, spread=verdicts.SPREAD)
    assert (p[:, -1] <= 0.05).all()
    takes = (p <= 0.05).argmax(axis=1) + 1
    for done, low, high in ((20, 0.74, 2.2), (80, 1.0, 1.35)):
        left = [(own, total) for own, total in zip(votes, takes, strict=True) if total > done]
        named = [(done + (verdicts.prompts_ahead(own[:done]) or np.inf)) / total for own, total in left]
        assert np.quantile(named, (0.25, 0.75)) == pytest.approx((low, high), rel=0.15)  # of 2,000 draws, to 2 digits
