"""A known law is found within its interval, and what is no law is said in words."""

import math
import re

import numpy as np
import pytest

from ftjax.evals import learning_curve

SIZES = (50, 100, 200, 500, 1000)
LAW = learning_curve.Law(0.4, 3.0, 0.5)


def runs(law, *, noise, seeds=3, sizes=SIZES, seed=0):
    rows = [size for size in sizes for _ in range(seeds)]
    return rows, law.at(rows) + np.random.default_rng(seed).normal(0, noise, len(rows))


def answer(rows, values, *, metric="eval_loss", worth=0.01):
    return learning_curve.answer(rows, values, metric=metric, worth=worth, seed=0)


def test_a_law_without_noise_is_found_to_the_last_digits():
    curve = learning_curve.fit(*runs(LAW, noise=0.0), lower_is_better=True, floor=-math.inf, seed=0)
    np.testing.assert_allclose(curve.law, LAW, rtol=1e-4)
    assert curve.gain(1000, 2000).value == pytest.approx(float(LAW.at(1000) - LAW.at(2000)), rel=1e-4)
    assert curve.rows_for(0.02) == pytest.approx((1000**-0.5 - 0.02 / 3) ** -2, rel=1e-3)
    assert curve.rows_for(0.2) is None  # below the floor


def test_intervals_of_the_gain_from_doubling_hold_the_truth_as_often_as_they_say():
    truth = float(LAW.at(1000) - LAW.at(2000))
    found = [
        learning_curve.fit(*runs(LAW, noise=0.01, seed=seed), lower_is_better=True, floor=-math.inf, seed=seed).gain(
            1000, 2000
        )
        for seed in range(60)
    ]
    assert np.sum([one.low <= truth <= one.high for one in found]) >= 53  # 57 expected; 52 or fewer: 1 in 30
    assert np.median([one.high - one.low for one in found]) < truth  # and say something


def test_no_law_of_a_loss_ends_below_0_and_the_true_gain_is_still_held(monkeypatch):
    monkeypatch.setattr(learning_curve, "DRAWS", 400)
    law = learning_curve.Law(0.0, 3.0, 0.5)
    truth, held, below = float(law.at(1000) - law.at(10000)), 0, 0
    for seed in range(60):
        rows, values = runs(law, noise=0.01, seed=seed)
        free = learning_curve.fit(rows, values, lower_is_better=True, floor=-math.inf, seed=seed)
        below += free.law.a < 0
        curve = learning_curve.fit(rows, values, lower_is_better=True, floor=0.0, seed=seed)
        assert min(curve.law.a, *curve.draws[:, 0]) >= 0
        gain = curve.gain(1000, 10000)
        assert gain.high <= free.gain(1000, 10000).high + 1e-9
        held += gain.low <= truth <= gain.high
    assert below >= 15, "half of the free laws do"
    assert held >= 53
    assert all(one.value < values.mean() for one in answer(rows, values).gains)


def test_a_loss_that_is_negative_has_no_floor():
    rows, values = runs(learning_curve.Law(-1.0, 3.0, 0.5), noise=0.001)
    assert answer(rows, values).curve.law.a == pytest.approx(-1, abs=0.02)


def test_a_curve_that_falls_on_asks_for_more_rows_and_says_how_many():
    said = answer(*runs(LAW, noise=0.002))
    assert said.verdict == "more"
    assert said.text.startswith("more: doubling to 2,000 rows would gain 0.02")
    assert "a gain of 0.01 needs about 1," in said.text
    assert [one.rows for one in said.gains] == [2000, 4000, 10000]
    values = [one.value for one in said.gains]
    assert values == sorted(values)


def test_a_curve_that_has_come_to_its_end_is_enough():
    said = answer(*runs(learning_curve.Law(0.4, 5.0, 1.2), noise=0.001))
    assert said.verdict == "enough"
    assert said.text.startswith("enough: doubling to 2,000 rows would gain 0.00")


def test_of_a_score_higher_is_better():
    rows, losses = runs(LAW, noise=0.002)
    said = answer(rows, 1 - losses, metric="eval_score")
    assert said.verdict == "more"
    assert said.gains[0].value > 0


def test_a_flat_curve_is_called_flat_and_is_enough_where_noise_is_small():
    said = answer(*runs(learning_curve.Law(0.5, 0.0, 1.0), noise=0.0005))
    assert said.verdict == "enough"
    assert "the curve is flat: from 50 to 1,000 rows eval_loss went from 0.5" in said.text


def test_noise_that_hides_the_curve_leaves_it_undecided():
    said = [answer(*runs(LAW, noise=0.2, seed=seed)) for seed in range(10)]
    assert sum(one.verdict == "undecided" for one in said) >= 8
    assert "more seeds or a larger size would tell" in next(one.text for one in said if one.verdict == "undecided")


def test_a_curve_that_rises_says_that_more_of_these_rows_do_harm():
    said = answer(*runs(learning_curve.Law(0.9, -3.0, 0.5), noise=0.002))
    assert said.verdict == "worse"
    assert said.text.startswith("worse: from 50 to 1,000 rows eval_loss went from 0.4")


@pytest.mark.parametrize(
    ("rows", "values", "says"),
    [
        ([50, 100], [0.9, 0.8], "2 sizes and 2 runs are too few .*eval_loss 0.9 at 50 rows; eval_loss 0.8 at 100"),
        ([50, 100, 200], [0.9, 0.8, 0.7], "3 sizes and 3 runs are too few"),
        ([50, 50, 50, 50], [0.9, 0.8, 0.7, 0.7], "1 size and 4 runs"),
        ([], [], "no run is done"),
        ([50, 100, 200, 400], [0.9, math.nan, 0.7, 0.6], "1 of 4 runs have no finite eval_loss and are left out"),
    ],
)
def test_what_is_too_little_for_a_curve_is_said_in_words(rows, values, says):
    said = answer(rows, values)
    assert said.verdict == "undecided"
    assert said.curve is None
    assert re.search(says, said.text)


def test_runs_that_are_all_alike_are_enough():
    said = answer([50, 100, 200, 500], [0.5] * 4)
    assert said.verdict == "enough"
    assert said.gains[0].value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "lower"),
    [("eval_loss", True), ("eval_text_perplexity", True), ("eval_score", False), ("eval_rewards/accuracies", False)],
)
def test_the_name_of_a_metric_says_which_way_is_better(metric, lower):
    assert learning_curve.lower_is_better(metric) == lower
