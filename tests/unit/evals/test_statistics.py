"""Intervals and correlations against published numbers and SciPy, which comes with jax."""

import numpy as np
import pytest
from scipy import stats

from ftjax.evals import statistics

# Newcombe 1998, Statistics in Medicine 17, table I: successes, draws, method 3 (Wilson's score interval).
NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize(("successes", "count", "low", "high"), NEWCOMBE)
def test_wilsons_interval_is_that_of_newcombes_table(successes, count, low, high):
    np.testing.assert_allclose(statistics.wilson(successes, count, level=0.95), (low, high), atol=5e-5)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_wilsons_interval_is_scipys_at_every_level(level):
    for successes, count in ((0, 1), (1, 1), (3, 7), (40, 40), (1999, 2000)):
        wanted = stats.binomtest(successes, count).proportion_ci(level, method="wilson")
        np.testing.assert_allclose(statistics.wilson(successes, count, level=level), wanted, atol=1e-12)


def test_no_draws_say_nothing_and_more_successes_than_draws_are_a_mistake():
    assert statistics.wilson(0, 0, level=0.95) == (0.0, 1.0)
    assert statistics.share(np.array([]), None, level=0.95)[1:] == (0.0, 1.0, 0)
    with pytest.raises(ValueError, match="5 successes of 4"):
        statistics.wilson(5, 4, level=0.95)


def test_clusters_of_one_change_nothing_and_copies_of_a_value_tell_nothing_new():
    values = np.array([1.0, 0, 0, 1, 1, 0.5, 1])
    plain = statistics.share(values, None, level=0.95)
    assert statistics.share(values, np.arange(7) * 10, level=0.95) == plain
    assert plain[:3] == (values.mean(), *statistics.wilson(values.sum(), 7, level=0.95))
    for value in (0.0, 1.0):
        of_one = statistics.share(np.full(12, value), np.repeat(np.arange(4), 3), level=0.95)
        np.testing.assert_allclose(of_one[:3], (value, *statistics.wilson(4 * value, 4, level=0.95)))


def test_the_design_effect_is_the_ratio_of_the_two_variances():
    values, clusters = np.array([1.0, 1, 0, 0, 1, 0]), np.array([0, 0, 1, 1, 2, 2])  # sums less mean: 1, -1, 0
    effect = (3 / 2 * 2) / (6 / 5 * 6 * 0.25)
    found = statistics.share(values, clusters, level=0.95)
    np.testing.assert_allclose(found[1:3], statistics.wilson(3 / effect, 6 / effect, level=0.95))
    assert found.of == 6


def test_pairs_of_one_prompt_widen_the_interval_to_what_resampling_prompts_gives():
    rng = np.random.default_rng(0)
    of_prompt = rng.beta(2, 1, 400)
    values = (rng.random((400, 6)) < of_prompt[:, None]).astype(float)
    found = statistics.share(values.ravel(), np.repeat(np.arange(400), 6), level=0.95)
    means = values[rng.integers(0, 400, (4000, 400))].mean(axis=(1, 2))
    np.testing.assert_allclose(found[1:3], np.quantile(means, [0.025, 0.975]), atol=0.004)
    plain = statistics.share(values.ravel(), None, level=0.95)
    assert found.high - found.low > 1.2 * (plain.high - plain.low)


def test_correlations_are_scipys_with_ties_and_without():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(50)
    for y in (x**3 + rng.standard_normal(50), np.round(x), rng.integers(0, 3, 50).astype(float)):
        np.testing.assert_allclose(statistics.pearson(x, y), stats.pearsonr(x, y).statistic, atol=1e-12)
        np.testing.assert_allclose(statistics.spearman(x, y), stats.spearmanr(x, y).statistic, atol=1e-12)
        np.testing.assert_array_equal(statistics.ranks(y), stats.rankdata(y))
    assert statistics.pearson(x, -2 * x) == pytest.approx(-1)
    assert statistics.pearson(np.ones(4), np.arange(4.0)) is None
    assert statistics.spearman(np.array([1.0]), np.array([1.0])) is None
