"""Intervals cover what they say and tests are wrong as rarely as they say, over 2,000 seeded draws (E12)."""

import math

import numpy as np
import pytest

from ftjax.evals import sequential, statistics

DRAWS = 2000


def covered(low, high, truth):
    return np.mean((np.asarray(low) <= truth) & (truth <= np.asarray(high)))


@pytest.mark.parametrize(("share", "count"), [(0.5, 100), (0.7, 120), (0.9, 60), (0.97, 200)])
def test_wilsons_interval_covers_the_share(share, count):
    ends = np.array([statistics.wilson(n, count, level=0.95) for n in range(count + 1)])
    drawn = np.random.default_rng(0).binomial(count, share, DRAWS)
    assert 0.93 <= covered(*ends[drawn].T, share) <= 0.97


@pytest.mark.parametrize(("share", "count"), [(0.5, 50), (0.8, 100)])
def test_the_exact_interval_covers_the_share_at_least_and_its_test_is_wrong_at_most_as_often(share, count):
    found = np.array([statistics.exact_binomial(n, count, share=share, level=0.95) for n in range(count + 1)])
    drawn = found[np.random.default_rng(0).binomial(count, share, DRAWS)]
    assert 0.95 <= covered(drawn[:, 1], drawn[:, 2], share) < 0.985
    assert np.mean(drawn[:, 3] <= 0.05) <= 0.055


def test_the_interval_of_clustered_shares_covers_the_share():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(80), 4)
    shares = np.repeat(rng.beta(3, 2, (DRAWS, 80)), 4, axis=1)
    found = [statistics.share(row, clusters, level=0.95) for row in (rng.random(shares.shape) < shares) * 1.0]
    assert 0.93 <= covered([x.low for x in found], [x.high for x in found], 0.6) <= 0.97


VALUES = {
    "normal": (lambda rng: rng.standard_normal(40), 0.0),
    "skewed": (lambda rng: rng.gamma(2.0, 1.0, 60), 2.0),
    "right or wrong": (lambda rng: (rng.random(100) < 0.6) * 1.0, 0.6),
}


@pytest.mark.parametrize("kind", VALUES)
def test_the_bootstrap_covers_the_mean(kind):
    draw, truth = VALUES[kind]
    rng = np.random.default_rng(2)
    found = [statistics.bootstrap(draw(rng), level=0.95, resamples=400, seed=n) for n in range(DRAWS)]
    assert 0.93 <= covered([x.low for x in found], [x.high for x in found], truth) <= 0.97


def test_the_paired_bootstrap_covers_the_difference_and_is_as_rarely_wrong():
    rng = np.random.default_rng(3)
    levels = rng.random((DRAWS, 60))
    a, b = (rng.random((2, DRAWS, 60)) < levels) * 1.0
    found = [statistics.paired_bootstrap(a[n], b[n], level=0.95, resamples=400, seed=n) for n in range(DRAWS)]
    assert 0.93 <= covered([x.low for x in found], [x.high for x in found], 0.0) <= 0.97
    assert np.mean([x.p <= 0.05 for x in found]) <= 0.055


def test_mcnemar_and_the_exchange_of_answers_are_wrong_in_at_most_five_percent():
    rng = np.random.default_rng(4)
    levels = rng.random((DRAWS, 40))
    a, b = (rng.random((2, DRAWS, 40)) < levels) * 1.0
    assert np.mean([statistics.mcnemar(a[n], b[n]).p <= 0.05 for n in range(DRAWS)]) <= 0.05
    of_scores = rng.standard_normal((2, DRAWS, 8))  # 2^8 exchanges: all of them
    p = [statistics.permutation(*of_scores[:, n], resamples=256, seed=n) for n in range(DRAWS)]
    assert 0.04 <= np.mean(np.array(p) <= 0.05) <= 0.055


def test_the_interval_of_kappa_covers_it():
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, (DRAWS, 200))
    noisy = lambda: np.where(rng.random(truth.shape) < 0.8, truth, rng.integers(0, 3, truth.shape))
    found = [statistics.cohen_kappa(a, b, level=0.95) for a, b in zip(noisy(), noisy(), strict=True)]
    assert 0.93 <= covered([x.low for x in found], [x.high for x in found], 0.64) <= 0.97


def test_corrections_keep_their_rate_over_families_of_tests():
    rng = np.random.default_rng(6)
    null = rng.random((DRAWS, 10))
    assert 0.035 <= np.mean([statistics.holm(row).min() <= 0.05 for row in null]) <= 0.055
    found = np.hstack([null, rng.random((DRAWS, 10)) * 1e-4])  # and ten real effects
    wrong = [statistics.benjamini_hochberg(row) <= 0.05 for row in found]
    assert np.mean([row[:10].sum() / max(row.sum(), 1) for row in wrong]) <= 0.05 * 0.5 + 0.005
    holms = np.mean([(statistics.holm(row)[:10] <= 0.05).any() for row in found])
    assert holms <= 0.055
    assert np.mean([row[:10].any() for row in wrong]) > 2 * holms  # it keeps shares of false finds, not families


def test_looking_again_and_again_at_a_test_of_fixed_size_finds_what_is_not_there():
    votes = np.cumsum(np.random.default_rng(7).random((20_000, 1000)) < 0.5, axis=1, dtype=np.int32)
    for looks, rate in ((1, 0.052), (5, 0.146), (10, 0.204), (20, 0.266), (100, 0.357)):
        at = np.arange(1, looks + 1) * (1000 // looks)
        reach = [_fewest_wins(count) for count in at]
        wins = votes[:, at - 1]
        found = ((wins >= reach) | (at - wins >= reach)).any(axis=1).mean()
        assert found == pytest.approx(rate, abs=0.01)


def _fewest_wins(count):
    """Returns how many wins of `count` leave one half out of Wilson's interval."""
    return next(n for n in range(count // 2, count + 2) if n > count or _leaves_half_out(n, count))


def _leaves_half_out(wins, count):
    return statistics.wilson(wins, count, level=0.95)[0] > 0.5


def test_an_always_valid_p_may_be_looked_at_after_every_vote():
    rng = np.random.default_rng(8)
    terms = {"against": 0.5, "variance": 0.25}
    for spread, rate in ((0.05, 0.021), (0.1, 0.031), (0.2, 0.031)):
        p = sequential.always_valid((rng.random((5000, 1000)) < 0.5) * 1.0, **terms, spread=spread)
        assert np.mean(p[:, -1] <= 0.05) == pytest.approx(rate, abs=0.008)


@pytest.mark.parametrize(("share", "votes", "mean", "near"), [(0.6, 1500, 216, 15), (0.55, 4500, 870, 60)])
def test_an_always_valid_p_finds_a_share_after_about_as_many_votes_as_a_test_of_fixed_size(share, votes, mean, near):
    drawn = (np.random.default_rng(9).random((1000, votes)) < share) * 1.0
    p = sequential.always_valid(drawn, against=0.5, variance=0.25, spread=0.1)
    assert (np.diff(p, axis=1) <= 0).all()
    assert (p[:, -1] <= 0.05).all()
    assert np.mean(np.argmax(p <= 0.05, axis=1) + 1) == pytest.approx(mean, abs=near)


def test_an_always_valid_p_is_the_formula():
    values = np.array([1.0, 1, 1, 0])
    after = lambda n, mean: (
        math.sqrt(0.25 / (0.25 + n * 0.01)) * math.exp(n**2 * 0.01 * (mean - 0.5) ** 2 / (0.5 * (0.25 + n * 0.01)))
    )
    p = sequential.always_valid(values, against=0.5, variance=0.25, spread=0.1)
    assert after(1, 1) < 1 < after(2, 1) < after(3, 1)
    assert after(4, 0.75) < after(3, 1)
    np.testing.assert_allclose(p, [1, 1 / after(2, 1), 1 / after(3, 1), 1 / after(3, 1)], rtol=1e-12)
