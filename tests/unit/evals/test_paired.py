"""The difference of two systems on the same items: its interval covers, its sign and its p are right."""

import numpy as np
import pytest
from scipy import special

from ftjax.evals import paired, sign_flips, statistics

SETTINGS = {"level": 0.95, "resamples": 2000, "seed": 0}
DRAWS = 2000


def shares(rng, count, first, second, correlation):
    """Draws two systems that are right with these probabilities, by normal numbers that correlate."""
    common = np.sqrt(correlation) * rng.normal(size=(DRAWS, count))
    own = lambda: common + np.sqrt(1 - correlation) * rng.normal(size=(DRAWS, count))
    return (own() < special.ndtri(first)) * 1.0, (own() < special.ndtri(second)) * 1.0


def shares_of_prompts(rng, clusters, first, second, prompt, row):
    """Draws the same where a part `prompt` of the variance is of the prompt, and a part `row` of the row."""
    common = np.sqrt(prompt) * rng.normal(size=(DRAWS, clusters[-1] + 1))[:, clusters]
    common += np.sqrt(row) * rng.normal(size=(DRAWS, len(clusters)))
    own = lambda: common + np.sqrt(1 - prompt - row) * rng.normal(size=common.shape)
    return (own() < special.ndtri(first)) * 1.0, (own() < special.ndtri(second)) * 1.0


@pytest.mark.parametrize(("first", "second", "correlation"), [(0.5, 0.6, 0.5), (0.1, 0.9, 0.0), (0.8, 0.85, 0.7)])
def test_the_interval_of_two_shares_covers_as_often_as_it_says(first, second, correlation):
    a, b = shares(np.random.default_rng(1), 100, first, second, correlation)
    ends = np.array([paired.newcombe(*pair, level=0.95) for pair in zip(a, b, strict=True)])
    covered = np.mean((ends[:, 0] <= second - first) & (second - first <= ends[:, 1]))
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("prompts", "rows", "first", "second", "prompt", "row"),
    [
        (50, (2,), 0.5, 0.53, 0.3, 0.6),
        (80, (4,), 0.5, 0.6, 0.4, 0.2),
        (40, (1, 2, 3, 4, 5), 0.8, 0.85, 0.5, 0.3),
        (30, (3,), 0.1, 0.9, 0.3, 0.0),
    ],
)
def test_the_interval_of_two_shares_over_prompts_covers_as_often_as_it_says(prompts, rows, first, second, prompt, row):
    clusters = np.repeat(np.arange(prompts), np.resize(rows, prompts))
    drawn = shares_of_prompts(np.random.default_rng(0), clusters, first, second, prompt, row)
    ends = np.array([paired.newcombe(*pair, clusters, level=0.95) for pair in zip(*drawn, strict=True)])
    covered = np.mean((ends[:, 0] <= second - first) & (second - first <= ends[:, 1]))
    assert 0.94 <= covered <= 0.975
    assert (ends[:, 1] - ends[:, 0]).min() > 0.01


@pytest.mark.parametrize(
    ("prompts", "rows", "share", "prompt", "row"),
    [
        (50, (2,), 0.5, 0.5, 0.2),
        (40, (1, 2, 3, 4, 5), 0.8, 0.5, 0.3),
    ],
)
def test_the_exact_test_over_prompts_is_wrong_in_at_most_five_percent(prompts, rows, share, prompt, row):
    clusters = np.repeat(np.arange(prompts), np.resize(rows, prompts))
    drawn = shares_of_prompts(np.random.default_rng(0), clusters, share, share, prompt, row)
    p = np.array([sign_flips.exact(b - a, clusters) for a, b in zip(*drawn, strict=True)])
    assert 0.015 <= np.mean(p <= 0.05) <= 0.05


def test_two_rows_of_one_prompt_among_many_change_an_interval_and_a_p_by_little():
    apart = np.arange(60)
    together = np.where(apart == 1, 0, apart)
    one, two = (paired.difference(np.zeros(60), np.ones(60), clusters, **SETTINGS) for clusters in (apart, together))
    assert (one.of, two.of) == (60, 59)
    assert two.low == pytest.approx(one.low, abs=2e-3)
    assert two.low < one.low < 1
    assert (one.p, two.p) == pytest.approx((2.0**-59, 2.0**-58), rel=1e-9)


def test_the_p_of_whole_gaps_is_that_of_every_turn_of_their_signs():
    rng = np.random.default_rng(5)
    for _ in range(40):
        a, b = (rng.random((2, 24)) < 0.6) * 1.0
        clusters = rng.integers(0, 9, 24)
        sums, _ = sign_flips.sums_of(b - a, clusters)
        signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        every = np.mean(np.abs(signs @ np.abs(sums)) >= abs(sums.sum()) - 1e-9)
        assert sign_flips.exact(b - a, clusters) == pytest.approx(every, rel=1e-9)
        assert sign_flips.exact(b - a, None) == pytest.approx(statistics.mcnemar(a, b).p, rel=1e-9)


def test_rows_of_one_single_prompt_tell_no_more_than_one_row():
    found = paired.difference(np.zeros(20), np.ones(20), np.zeros(20, int), **SETTINGS)
    assert (found.p, found.of) == (1.0, 1)
    assert found.low < 0.2
    a = np.array([0.0, 1.0] * 10)
    level = paired.difference(a, a, np.repeat(np.arange(10), 2), **SETTINGS)  # sums of clusters do not vary
    assert level.low < 0 < level.high


def test_a_gap_as_large_everywhere_has_a_p_that_a_correction_over_many_tests_leaves_small():
    rng = np.random.default_rng(0)
    a, b = 10 + 0.01 * rng.normal(size=(2, 20)) - np.array([[0], [9]])
    found = paired.difference(a, b, None, **SETTINGS)
    assert -9.02 < found.low < found.high < -8.98
    assert found.p == 2.0**-19
    twice = [np.repeat(x, 2) for x in (a, b)]
    assert paired.difference(*twice, np.repeat(np.arange(20), 2), **SETTINGS).p == 2.0**-19
    some = paired.difference(a, a - 0.01 + 0.01 * rng.normal(size=20), None, **SETTINGS)
    assert some.p > 2.0**-19
    assert (some.p <= 0.05) == (some.high < 0)


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
    one = np.arange(60)
    assert paired.difference(a, b, one, **SETTINGS) == paired.difference(a, b, None, **SETTINGS)
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
