"""The difference of two systems on the same items: its interval covers, its sign and its p are right."""

import numpy as np
import pytest

from ftjax.evals import paired, statistics

SETTINGS = {"level": 0.95, "resamples": 2000, "seed": 0}
DRAWS = 2000


def shares(rng, count, first, second, correlation):
    """Draws two systems that are right with these probabilities, by normal numbers that correlate."""
    common = np.sqrt(correlation) * rng.normal(size=(DRAWS, count))
    own = lambda: common + np.sqrt(1 - correlation) * rng.normal(size=(DRAWS, count))
    from scipy import special

    return (own() < special.ndtri(first)) * 1.0, (own() < special.ndtri(second)) * 1.0


@pytest.mark.parametrize(("first", "second", "correlation"), [(0.5, 0.6, 0.5), (0.1, 0.9, 0.0), (0.8, 0.85, 0.7)])
def test_the_interval_of_two_shares_covers_as_often_as_it_says(first, second, correlation):
    a, b = shares(np.random.default_rng(1), 100, first, second, correlation)
    ends = np.array([paired.newcombe(*pair, level=0.95) for pair in zip(a, b, strict=True)])
    covered = np.mean((ends[:, 0] <= second - first) & (second - first <= ends[:, 1]))
    assert 0.93 <= covered <= 0.97


def test_newcombe_gives_his_published_intervals():
    # Newcombe 1998, method 10: items right in both, only in the first, only in the second, in none.
    table = {(36, 12, 2, 0): (0.0569, 0.3404), (20, 12, 2, 16): (0.0562, 0.3290)}
    for counts, ends in table.items():
        first = np.repeat([1.0, 1.0, 0.0, 0.0], counts)
        second = np.repeat([1.0, 0.0, 1.0, 0.0], counts)
        assert paired.newcombe(second, first, level=0.95) == pytest.approx(ends, abs=5e-4)


def test_an_interval_has_width_where_one_system_is_right_everywhere():
    found = paired.difference(np.zeros(40), np.ones(40), None, **SETTINGS)
    assert found.value == 1
    assert 0.8 < found.low < 0.95
    assert found.high == 1


def test_items_right_or_wrong_are_tested_by_mcnemar_and_others_by_the_bootstrap():
    rng = np.random.default_rng(0)
    a, b = (rng.random((2, 60)) < 0.5) * 1.0
    assert paired.difference(a, b, None, **SETTINGS).p == statistics.mcnemar(a, b).p
    a, b = rng.random((2, 60))
    assert paired.difference(a, b, None, **SETTINGS) == statistics.paired_bootstrap(a, b, **SETTINGS)


def test_exchanging_the_systems_turns_the_sign():
    rng = np.random.default_rng(0)
    for a, b in (rng.random((2, 60)), (rng.random((2, 60)) < 0.4) * 1.0):
        one, other = paired.difference(a, b, None, **SETTINGS), paired.difference(b, a, None, **SETTINGS)
        assert one.value == pytest.approx(-other.value)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.02)


def test_the_values_of_a_quotient_have_it_as_their_mean_and_its_interval_covers():
    rng, covered = np.random.default_rng(3), 0
    for _ in range(400):
        tokens = rng.integers(1, 40, 60).astype(float)
        nats = tokens * (0.7 + 0.2 * rng.normal(size=60))
        values = paired.of_sums(nats, tokens)
        assert values.mean() == pytest.approx(nats.sum() / tokens.sum())
        found = paired.alone(values, None, level=0.95, resamples=1000, seed=0)
        covered += found.low <= 0.7 <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_items_that_belong_together_tell_no_more_than_one_of_them():
    rng = np.random.default_rng(0)
    a, b = (rng.random((2, 50)) < 0.4) * 1.0
    alone = paired.difference(a, b, None, **SETTINGS)
    four = paired.difference(*(np.repeat(x, 4) for x in (a, b)), np.repeat(np.arange(50), 4), **SETTINGS)
    apart = paired.difference(*(np.repeat(x, 4) for x in (a, b)), None, **SETTINGS)
    assert four.of == 50
    assert four.value == pytest.approx(alone.value)
    assert four.high - four.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert apart.high - apart.low < 0.6 * (four.high - four.low)
