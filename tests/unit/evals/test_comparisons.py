"""Tests and agreement of `statistics` against published numbers, scipy and statsmodels; what they refuse."""

import math

import numpy as np
import pytest
from scipy import stats

from ftjax.errors import UserError
from ftjax.evals import statistics, verdict

# 22 battles: model_a, model_b, winner, how often. Ratings computed by FastChat's elo_analysis.
BATTLES = [
    battle
    for *battle, times in (
        *(("A", "B", "model_a", 6), ("B", "A", "model_a", 3), ("A", "C", "model_a", 5)),
        *(("A", "C", "tie", 2), ("C", "B", "model_b", 4), ("B", "C", "model_b", 2)),
    )
    for _ in range(times)
]
# Fleiss 1971 as tabled in Wikipedia's worked example: 10 items, 14 raters, counts of 5 labels; kappa .210.
FLEISS = [
    *((0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1)),
    *((7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7)),
]
# Krippendorff 2011, section C: four observers, twelve units, missing values.
_ = math.nan
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]


def test_ratings_of_battles_are_fastchats():
    elo = statistics.elo(BATTLES, k=4)
    np.testing.assert_allclose([elo[name] for name in "ABC"], [1014.6730, 998.2404, 987.0866], atol=1e-4)
    strengths = statistics.bradley_terry(BATTLES)
    np.testing.assert_allclose([strengths[name] for name in "ABC"], [1138.093, 1002.578, 859.329], atol=1e-3)


def test_order_matters_to_elo_and_not_to_bradley_and_terry():
    turned = BATTLES[::-1]
    assert abs(statistics.elo(turned, k=4)["A"] - statistics.elo(BATTLES, k=4)["A"]) > 0.1
    for name, value in statistics.bradley_terry(turned).items():
        assert value == pytest.approx(statistics.bradley_terry(BATTLES)[name], abs=1e-3)


def test_a_model_that_never_lost_has_no_rating_and_is_named():
    with pytest.raises(UserError, match=r"not every one of .*best.* has won and lost"):
        statistics.bradley_terry([*BATTLES, ("best", "A", "model_a"), ("best", "B", "model_a")])
    with pytest.raises(ValueError, match="'model_c'"):
        statistics.elo([("A", "B", "model_c")], k=4)


@pytest.mark.parametrize(("share", "draws"), [(0.52, 4903), (0.55, 783), (0.6, 194), (0.65, 85), (0.7, 47)])
def test_sample_sizes_are_the_published_table_and_the_effect_that_they_find_is_the_share(share, draws):
    terms = {"against": 0.5, "alpha": 0.05, "power": 0.8}
    assert statistics.sample_size(share, **terms) == draws
    assert statistics.minimum_detectable_effect(draws, **terms) == pytest.approx(share - 0.5, abs=1e-3)


def test_a_sample_that_finds_nothing_has_no_effect_and_a_share_is_not_told_from_itself():
    assert math.isnan(statistics.minimum_detectable_effect(3, against=0.5, alpha=0.05, power=0.8))
    with pytest.raises(ValueError, match=r"0\.5 against 0\.5"):
        statistics.sample_size(0.5, against=0.5, alpha=0.05, power=0.8)


def test_a_sample_of_that_size_finds_its_share_as_often_as_it_says():
    draws = statistics.sample_size(0.6, against=0.5, alpha=0.05, power=0.8)
    wins = np.arange(draws + 1)
    z = np.abs(wins / draws - 0.5) / math.sqrt(0.25 / draws)
    assert stats.binom.pmf(wins, draws, 0.6)[z > 1.959964].sum() == pytest.approx(0.8, abs=0.02)


def test_the_interval_of_a_binomial_is_clopper_and_pearsons_and_its_p_exact():
    found = statistics.exact_binomial(7, 20, share=0.5, level=0.95)
    ends = stats.beta.ppf([0.025, 0.975], [7, 8], [14, 13])
    np.testing.assert_allclose(found, (0.35, *ends, 2 * stats.binom.cdf(7, 20, 0.5)), atol=1e-9)
    with pytest.raises(ValueError, match="0 successes of 0"):
        statistics.exact_binomial(0, 0, share=0.5, level=0.95)


def test_mcnemar_counts_flips_and_is_statsmodels_exact_test():
    from statsmodels.stats import contingency_tables

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2, (2, 60))
    found = statistics.mcnemar(a, b)
    table = [[np.sum((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)]
    assert (found.gained, found.lost, found.of) == (table[0][1], table[1][0], 60)
    assert found.p == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue, abs=1e-12)
    assert statistics.mcnemar(a, a) == (0, 0, 1.0, 60)
    with pytest.raises(ValueError, match="paired_bootstrap"):
        statistics.mcnemar(a * 0.5, b)


def test_few_items_are_exchanged_in_every_way():
    a, b = np.zeros(5), np.array([1.0, 2, 3, 4, 5])
    assert statistics.permutation(a, b, resamples=1000, seed=0) == pytest.approx(2 / 32)
    assert statistics.permutation(a, a, resamples=1000, seed=0) == 1


def test_many_items_are_exchanged_at_random_by_a_seed():
    rng = np.random.default_rng(1)
    a = rng.standard_normal(80)
    b = a + 0.25 + rng.standard_normal(80)
    found = statistics.permutation(a, b, resamples=9999, seed=3)
    assert found == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.35)
    assert found == statistics.permutation(a, b, resamples=9999, seed=3)


def test_the_bootstrap_is_about_students_interval_for_normal_values():
    values = np.random.default_rng(2).standard_normal(40)
    found = statistics.bootstrap(values, level=0.95, resamples=20_000, seed=0)
    half = stats.t.ppf(0.975, 39) * stats.sem(values)
    np.testing.assert_allclose(found, (values.mean(), values.mean() - half, values.mean() + half), atol=0.02)


def test_a_paired_p_of_five_percent_is_an_interval_that_touches_zero():
    rng = np.random.default_rng(3)
    a = np.zeros(40)
    seen = set()
    for shift in np.linspace(0.2, 0.45, 40):
        b = shift + rng.standard_normal(40)
        found = statistics.paired_bootstrap(a, b, level=0.95, resamples=999, seed=0)
        inside = found.low <= 0 <= found.high
        assert inside == (found.p > 0.05)
        assert found.value == pytest.approx(b.mean())
        seen.add(inside)
    assert seen == {True, False}


def test_rows_of_one_cluster_are_drawn_together():
    rng = np.random.default_rng(4)
    values = np.repeat(rng.standard_normal(60), 5)
    whole = statistics.bootstrap(values[::5], level=0.95, resamples=4000, seed=0)
    together = statistics.bootstrap(values, np.repeat(np.arange(60), 5), level=0.95, resamples=4000, seed=0)
    np.testing.assert_allclose(together, whole, atol=1e-12)
    apart = statistics.bootstrap(values, level=0.95, resamples=4000, seed=0)
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(5**0.5, rel=0.08)


def test_fewer_than_thirty_values_warn_and_three_have_no_interval():
    with pytest.warns(statistics.FewValues, match="29 values"):
        statistics.bootstrap(np.arange(29.0), level=0.95, resamples=200, seed=0)
    with pytest.warns(statistics.FewValues, match="1 values"):
        found = statistics.paired_bootstrap(np.zeros(1), np.ones(1), level=0.95, resamples=200, seed=0)
    assert found == (1.0, -math.inf, math.inf, 1.0, 1)
    terms = {"level": 0.95, "resamples": 10_000, "seed": 0}
    for count, known in ((3, False), (4, True)):
        values = np.linspace(1, 2, count)
        with pytest.warns(statistics.FewValues):
            found = statistics.paired_bootstrap(np.zeros(count), values, **terms)
        assert math.isfinite(found.low) is known
        assert (found.p <= 0.05) is known
    assert statistics.bootstrap(np.arange(40.0), level=0.95, resamples=10, seed=0).high == math.inf


def test_nothing_to_compare_and_different_lengths_are_refused():
    terms = {"level": 0.95, "resamples": 200, "seed": 0}
    with pytest.raises(UserError, match="no value to measure"):
        statistics.bootstrap(np.array([]), **terms)
    with pytest.raises(UserError, match="3 and 2 values"):
        statistics.paired_bootstrap(np.zeros(3), np.zeros(2), **terms)
    with pytest.raises(UserError, match="3 and 2 values"):
        statistics.mcnemar(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        statistics.bootstrap(np.array([1.0, math.nan]), **terms)


def test_kappa_of_two_raters_is_cohens_example():
    # Both say yes 20 times and no 15 times, a alone says yes 5 times, b alone 10 times: p_o .7, p_e .5.
    a = ["yes"] * 20 + ["no"] * 15 + ["yes"] * 5 + ["no"] * 10
    b = ["yes"] * 20 + ["no"] * 15 + ["no"] * 5 + ["yes"] * 10
    found = statistics.cohen_kappa(a, b, level=0.95)
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    wide = statistics.cohen_kappa(a, b, level=0.99)
    assert (wide.high - 0.4) / (found.high - 0.4) == pytest.approx(2.575829 / 1.959964, rel=1e-6)
    assert all(map(math.isnan, statistics.cohen_kappa(["x"] * 4, ["x"] * 4, level=0.95)))


def test_kappa_of_many_raters_is_fleisses_example():
    ratings = np.array([np.repeat(np.arange(5), counts) for counts in FLEISS])
    assert statistics.fleiss_kappa(ratings) == pytest.approx(0.20993, abs=1e-5)
    assert math.isnan(statistics.fleiss_kappa(np.ones((4, 3), int)))


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs_example(metric, alpha):
    assert statistics.krippendorff_alpha(np.array(OBSERVERS).T, metric=metric) == pytest.approx(alpha, abs=6e-4)


def test_alpha_needs_two_ratings_of_an_item_and_is_nothing_where_all_agree_on_one():
    with pytest.raises(ValueError, match="no item has two"):
        statistics.krippendorff_alpha(np.array([[1, _], [_, 2]]), metric="nominal")
    assert math.isnan(statistics.krippendorff_alpha(np.array([[1, 1], [1, 1], [2, _]]), metric="nominal"))
    with pytest.raises(ValueError, match="one column a rater"):
        statistics.krippendorff_alpha(np.ones((4, 1)), metric="nominal")


def test_corrected_p_are_those_worked_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(statistics.holm(p), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.benjamini_hochberg(p), [0.02, 0.04, 0.04, 0.02])
    assert len(statistics.holm([])) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.holm([0.2, 1.2])


@pytest.mark.parametrize(
    ("ours", "theirs"), [(statistics.holm, "holm"), (statistics.benjamini_hochberg, "fdr_bh")], ids=["holm", "bh"]
)
def test_corrected_p_are_those_of_statsmodels_also_of_ties(ours, theirs, monkeypatch):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    monkeypatch.setattr("gc.collect", lambda: 0)  # its holm calls it each time: a second where jax and 5,000 tests are
    rng = np.random.default_rng(0)
    for count in range(1, 40):
        p = rng.choice([0.0, 1.0, *rng.random(8) ** 3], count)
        np.testing.assert_allclose(ours(p), multitest.multipletests(p, method=theirs)[1], rtol=1e-12)


def test_a_difference_is_called_by_its_interval():
    better = statistics.Difference(0.031, 0.012, 0.05, 0.002, 400)
    assert verdict.in_words(better, a="base", b="LoRA") == (
        "LoRA is higher than base by 0.031 (0.012 to 0.05; p = 0.002)"
    )
    worse = statistics.Difference(-0.031, -0.05, -0.012, 0.0001, 400)
    assert verdict.in_words(worse, a="base", b="LoRA") == (
        "LoRA is lower than base by 0.031 (0.012 to 0.05; p < 0.001)"
    )
    neither = statistics.Difference(0.031, -0.012, 0.07, 0.2, 12)
    assert verdict.in_words(neither, a="base", b="LoRA") == (
        "undecided: LoRA - base is 0.031 (-0.012 to 0.07; p = 0.2); only 12 items, and fewer than 30 are rough"
    )
    unknown = statistics.Difference(1.0, -math.inf, math.inf, 1.0, 1)
    assert verdict.in_words(unknown, a="a", b="b").startswith("undecided: b - a is 1 (unknown; p = 1)")
