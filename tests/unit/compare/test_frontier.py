"""The front holds who is beaten by nobody, and the smallest is the cheapest that is surely beyond the bar."""

import random

from ftjax.compare import frontier

POINTS = [
    frontier.Point("tiny", 0.50, 0.40, 0.60, 1.0),
    frontier.Point("small", 0.90, 0.85, 0.94, 3.0),
    frontier.Point("odd", 0.80, 0.75, 0.85, 5.0),
    frontier.Point("large", 0.92, 0.87, 0.96, 9.0),
]


def test_who_is_dearer_and_worse_is_not_on_the_front():
    assert frontier.front(POINTS, better=1, apart=1.0) == ["tiny", "small", "large"]


def test_of_a_loss_less_is_better():
    assert frontier.front(POINTS, better=-1, apart=1.0) == ["tiny"]
    assert frontier.smallest(POINTS, better=-1, bar=0.86, apart=1.0) == ["tiny"]


def test_the_front_is_what_comparing_all_with_all_leaves():
    rng = random.Random(0)
    points = [frontier.Point(str(n), rng.randint(0, 9), 0, 0, rng.randint(0, 9)) for n in range(60)]
    beats = lambda a, b: a.value >= b.value and a.price <= b.price and a[1:] != b[1:]
    left = {one.name for one in points if not any(beats(other, one) for other in points)}
    assert set(frontier.front(points, better=1, apart=1.0)) == left


def test_the_bar_is_met_by_the_worse_end_of_the_interval():
    assert frontier.smallest(POINTS, better=1, bar=0.80, apart=1.0) == ["small"]
    assert frontier.smallest(POINTS, better=1, bar=0.86, apart=1.0) == ["large"]
    assert frontier.smallest(POINTS, better=1, bar=0.90, apart=1.0) == []


def test_seconds_that_timing_may_have_told_apart_put_nobody_off_the_front():
    ends = (0.8, 0.7, 0.9)
    seconds = lambda *prices: frontier.about(
        ["one", "again", "slow"], [ends] * 3, prices, price="answer_seconds", better=1, bar=0.6
    )
    found = seconds(1.0, 1.4, 1.6)
    assert found["front"] == ["one", "again"]
    assert (found["smallest"], found["as_small"]) == ("one", ["again"])
    assert seconds(1.0, 1.4, 1.49) is None
    counted = frontier.about(["one", "again"], [ends] * 2, [1.0, 1.19], price="parameters", better=1, bar=0.6)
    assert (counted["front"], counted["as_small"]) == (["one"], [])


def test_who_is_better_and_about_as_fast_beats_who_is_worse():
    points = [frontier.Point("worse", 0.5, 0.4, 0.6, 1.0), frontier.Point("better", 0.9, 0.8, 0.95, 1.2)]
    assert frontier.front(points, better=1, apart=frontier.APART) == ["better"]
    assert frontier.front(points, better=1, apart=1.0) == ["worse", "better"]
