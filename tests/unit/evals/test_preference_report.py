"""What is said of a reward model on held-out pairs."""

import json

import numpy as np
import pytest

from ftjax.errors import UserError
from ftjax.evals import preference, statistics


def drawn(pairs, *, scale=1.0, bias=0.0, seed=0):
    """Scores and lengths of pairs that a Bradley-Terry model of logits `scale` times too large was asked about.

    `bias` is what the model adds to a score for a token.
    """
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, pairs)) * 1.5
    lengths = rng.integers(5, 60, (2, pairs)).astype(float)
    swap = rng.random(pairs) > 1 / (1 + np.exp(second - first))
    chosen, rejected = np.where(swap, second, first), np.where(swap, first, second)
    return {
        "chosen": scale * chosen + bias * lengths[0],
        "rejected": scale * rejected + bias * lengths[1],
        "chosen_lengths": lengths[0],
        "rejected_lengths": lengths[1],
        "margins": np.zeros(pairs),
        "prompts": None,
    }


def report(given, **changes):
    given = given | changes
    return preference.report(given.pop("chosen"), given.pop("rejected"), **given)


def test_every_number_of_a_hand_made_set_is_the_one_that_a_hand_computes():
    found = preference.report(
        np.array([2.0, 0.0, 1.0, 1.0]),
        np.array([1.0, 1.0, 1.0, -1.0]),
        chosen_lengths=np.array([10.0, 20, 21, 3]),
        rejected_lengths=np.array([20.0, 10, 20, 9]),
        margins=np.array([1.0, 2, 2, 1]),
        prompts=np.array([7, 8, 9, 4]),
    )
    assert (found["pairs"], found["prompts"], found["ties"]) == (4, 4, 1)
    low, high = statistics.wilson(2.5, 4, level=0.95)
    assert found["accuracy"] == pytest.approx({"accuracy": 0.625, "low": low, "high": high, "pairs": 4})
    assert found["mean_margin"] == 0.5
    np.testing.assert_allclose(found["loss"], np.mean(np.log1p(np.exp([-1.0, 1, 0, -2]))))
    assert [(row["margin"], row["accuracy"], row["pairs"]) for row in found["by_margin"]] == [
        ("1", 1, 2),
        ("2", 0.25, 2),
    ]
    by_length = {row["length"]: (row["accuracy"], row["pairs"]) for row in found["by_length"]}
    assert by_length == {"chosen is shorter": (1, 2), "about equal": (0.5, 1), "chosen is longer": (0, 1)}
    assert found["length"]["chosen_is_longer"]["accuracy"] == 0.5
    np.testing.assert_allclose(
        found["length"]["pearson"],
        np.corrcoef([2, 0, 1, 1, 1, 1, 1, -1], [10, 20, 21, 3, 20, 10, 20, 9])[0, 1],
    )
    np.testing.assert_allclose(
        found["length"]["pearson_of_differences"], np.corrcoef([1, -1, 0, 2], [-10, 10, 1, -6])[0, 1]
    )


def test_a_model_that_is_three_times_too_sure_is_told_so_and_mended_on_pairs_that_were_not_fitted():
    found = report(drawn(4000, scale=3.0))
    np.testing.assert_allclose(found["temperature"], 3.0, rtol=0.1)
    assert found["ece"] > 5 * found["ece_by_chance"]
    assert found["ece_after_temperature"] < 2 * found["ece_by_chance"]
    sound = report(drawn(4000))
    assert sound["ece"] < 2 * sound["ece_by_chance"]
    assert "too sure" in preference.markdown(found, title="t")


def test_a_model_that_loves_length_is_right_where_the_chosen_one_is_longer_and_wrong_where_it_is_not():
    found = report(drawn(2000, scale=0.3, bias=0.2))
    accuracy = {row["length"]: row["accuracy"] for row in found["by_length"]}
    assert accuracy["chosen is longer"] > 0.9
    assert accuracy["chosen is shorter"] < 0.2
    assert min(found["length"]["pearson"], found["length"]["spearman_of_differences"]) > 0.9


def test_groups_of_margins_hold_every_pair_once():
    rng = np.random.default_rng(0)
    for margins in (rng.random(101), rng.integers(0, 7, 101) * 1.0, np.repeat([0.0, 3.0], [100, 1])):
        rows = report(drawn(101), margins=margins)["by_margin"]
        assert sum(row["pairs"] for row in rows) == 101
        assert 2 <= len(rows) <= preference.GROUPS
    assert report(drawn(101))["by_margin"] == []


def test_pairs_of_one_prompt_count_for_less_than_pairs_of_many():
    given = drawn(120)
    copies = {name: value if value is None else np.repeat(value[:40], 3) for name, value in given.items()}
    apart, together = report(copies), report(copies, prompts=np.repeat(np.arange(40), 3))
    width = lambda found: found["accuracy"]["high"] - found["accuracy"]["low"]
    assert together["accuracy"]["accuracy"] == apart["accuracy"]["accuracy"]
    assert width(together) > 1.5 * width(apart)
    assert (apart["prompts"], together["prompts"]) == (120, 40)


def test_the_reliability_of_pairs_of_one_prompt_is_less_sure_too():
    given = drawn(400)
    copies = {name: value if value is None else np.repeat(value, 3) for name, value in given.items()}
    apart, together = report(copies), report(copies, prompts=np.repeat(np.arange(400), 3))
    for name in ("reliability", "reliability_after_temperature"):
        widths = [[row["high"] - row["low"] for row in found[name]] for found in (apart, together)]
        wider = np.divide(widths[1], widths[0])
        assert ((wider > 1.5) & (wider < 3)).all()  # the root of 3, or 3 where all pairs are right
    strip = lambda rows: [(row["confidence"], row["accuracy"], row["pairs"]) for row in rows]
    assert strip(apart["reliability"]) == strip(together["reliability"])
    one = report(given, prompts=np.zeros(400, int))["reliability"]
    assert all(row["high"] - row["low"] > 0.5 for row in one)
    # Scores that differ by chance alone are right half of the time, in every bin as a hand counts it.
    gaps = given["chosen"] - given["rejected"]
    rows, order = report(given)["reliability"], np.argsort(np.abs(gaps))
    assert [row["accuracy"] for row in rows] == [np.mean(own) for own in np.split(gaps[order] > 0, 10)]


def test_equal_scores_say_nothing_of_how_sure_a_model_is():
    equal = {"chosen": np.full(40, 2.0), "rejected": np.full(40, 2.0)}
    found = report(drawn(40), **equal)
    assert (found["temperature"], found["ece_after_temperature"], found["ties"]) == (None, None, 40)
    page = preference.markdown(found, title="t")
    assert "| temperature | - (the two scores of every pair are equal: nothing can be said) |" in page
    assert list(preference.curves(found)) == ["reward model"]
    right = {"chosen": np.ones(40), "rejected": np.zeros(40)}
    wrong = {"chosen": np.zeros(40), "rejected": np.ones(40)}
    shown = [preference.markdown(report(drawn(40), **one), title="t") for one in (right, wrong)]
    assert "| temperature | 0.001 (never wrong: none is too low) |" in shown[0]
    assert "| temperature | 1e+03 (no mean margin above 0: none is too high) |" in shown[1]
    mixed = drawn(40)
    mixed["chosen"][::2] = mixed["rejected"][::2]  # one half of the prompts has nothing to fit
    found = report(mixed)
    assert found["temperature"] is not None
    assert found["reliability_after_temperature"] is None


@pytest.mark.parametrize("pairs", [1, 2, 300])
def test_a_report_is_json_a_page_and_the_lines_of_a_diagram_however_few_pairs_there_are(pairs):
    found = report(drawn(pairs))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    page = preference.markdown(found, title="Held out")
    assert page.startswith("# Held out\n")
    assert "nan" not in page
    assert f"{found['accuracy']['accuracy']:.3f} [{found['accuracy']['low']:.3f}, " in page
    lines = preference.curves(found)
    assert len(lines) == (1 if pairs == 1 else 2)
    assert all(sum(row[2] for row in bins) == pairs for bins in lines.values())


def test_scores_that_are_not_finite_no_pairs_and_arrays_that_do_not_fit_are_named():
    with pytest.raises(UserError, match="2 of 20 held-out scores are not finite"):
        report(drawn(10), chosen=np.array([np.nan, np.inf, *np.zeros(8)]))
    with pytest.raises(UserError, match="no held-out pairs"):
        report(drawn(0))
    with pytest.raises(ValueError, match="one number a pair"):
        report(drawn(10), margins=np.zeros(9))
