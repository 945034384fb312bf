"""What is said to have changed between the two ends of a run."""

import numpy as np
import pytest

from ftjax.evals import change, statistics


def rows(before, after, prompts=None):
    """Returns rows with these values at either end."""
    return [
        {"id": f"{n:016x}", "prompt": f"p{n}" if prompts is None else prompts[n], "before": old, "after": new}
        for n, (old, new) in enumerate(zip(before, after, strict=True))
    ]


def scored(a, b, prompts=None):
    return rows([{"score": float(x)} for x in a], [{"score": float(x)} for x in b], prompts)


def test_a_loss_is_nats_over_tokens_and_its_interval_that_of_whole_rows():
    """Long rows weigh more: a mean over rows would be another number."""
    rng = np.random.default_rng(0)
    tokens, gaps = rng.integers(1, 40, 80), rng.normal(-0.1, 0.05, 80)
    before = [{"nats": 2.0 * n, "tokens": int(n)} for n in tokens]
    after = [{"nats": (2.0 + gap) * n, "tokens": int(n)} for n, gap in zip(tokens, gaps, strict=True)]
    found = change.of(rows(before, after), seed=0)["loss"]
    assert found["before"] == pytest.approx(2.0)
    assert found["value"] == pytest.approx((gaps * tokens).sum() / tokens.sum())
    assert found["after"] == pytest.approx(found["before"] + found["value"])
    assert abs(found["value"] - gaps.mean()) > 1e-4, "or the case tells nothing"
    assert found["low"] < found["value"] < found["high"] < 0
    # The variance of a ratio of sums, by the delta method (Cochran 1977, 2.11).
    error = np.sqrt(((tokens * (gaps - found["value"])) ** 2).sum()) / tokens.sum()
    assert found["high"] - found["low"] == pytest.approx(2 * 1.99 * error, rel=0.1)
    assert found["of"] == 80


def test_right_and_wrong_answers_are_tested_exactly_and_the_flips_are_named():
    a, b = [0] * 50 + [1] * 50, [1] * 30 + [0] * 20 + [1] * 40 + [0] * 10
    found = change.of(scored(a, b), seed=0)
    assert found["score"]["p"] == statistics.mcnemar(np.array(a), np.array(b)).p
    assert found["score"]["value"] == pytest.approx(0.2)
    assert found["flips"] == {
        "of": "score",
        "won": 30,
        "lost": 10,
        "ids": {"won": [f"{n:016x}" for n in range(5)], "lost": [f"{n:016x}" for n in range(90, 95)]},
    }
    assert found["words"].startswith("score: after is higher than before by 0.2 (")


def test_scores_between_right_and_wrong_flip_where_they_rise_or_fall():
    found = change.of(scored([0.25, 0.5, 0.5], [0.5, 0.5, 0.25]), seed=0)
    assert (found["flips"]["won"], found["flips"]["lost"]) == (1, 1)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        (0, 0, -0.0370, 0.0370),  # 0 of 100 have at most 3.70 %
        (0, 1, 0.9477, 1.0),  # 3.70 % off either end, at right angles: 3.70 times the root of 2
        (1, 0, -1.0, -0.9477),
    ],
)
def test_rows_that_all_flip_or_all_stay_have_newcombes_interval_and_no_point(a, b, low, high):
    found = change.of(scored([a] * 100, [b] * 100), seed=0)["score"]
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-4)


def test_rows_of_one_prompt_tell_less_than_as_many_apart():
    rng = np.random.default_rng(1)
    a = np.repeat(rng.integers(0, 2, 60), 4)
    b = np.repeat(rng.integers(0, 2, 60), 4)
    apart = change.of(scored(a, b), seed=0)["score"]
    together = change.of(scored(a, b, [f"p{n // 4}" for n in range(240)]), seed=0)["score"]
    assert (apart["of"], together["of"]) == (240, 60)
    assert together["value"] == pytest.approx(apart["value"])
    ratio = (together["high"] - together["low"]) / (apart["high"] - apart["low"])
    assert ratio == pytest.approx(2.0, rel=0.1), "four equal rows are one"


def test_texts_without_a_prompt_stand_alone():
    found = change.of(scored([0, 1] * 20, [1, 1] * 20, [""] * 40), seed=0)
    assert found["score"]["of"] == 40


def test_completions_with_labels_count_one_by_one():
    before = [{"loss": 1.0, "weight": 1}, {"loss": 0.0, "weight": 3}]
    after = [{"loss": 0.0, "weight": 1}, {"loss": 0.4, "weight": 3}]
    found = change.of(rows(before, after), seed=0)["loss"]
    assert (found["before"], found["after"]) == pytest.approx((0.25, 0.3))
    assert found["value"] == pytest.approx(0.05)


def test_a_row_that_has_no_number_is_told_and_ends_no_run():
    found = change.of(rows([{"nats": 1.0, "tokens": 2}] * 2, [{"nats": "NaN", "tokens": 2}] * 2), seed=0)
    assert set(found["loss"]) == {"before", "after", "of"}
    assert found["words"] == "undecided: the loss of a row is not finite"


def test_few_rows_are_said_to_be_few_and_nothing_changed_is_undecided():
    """FewValues would be an error here, as every warning is."""
    words = change.of(scored([0, 1, 0, 1], [1, 0, 0, 1]), seed=0)["words"]
    assert words.startswith("score: undecided: after - before is 0")
    assert words.endswith("only 4 items, and fewer than 30 are rough")


def test_a_metric_is_of_the_rows_that_have_it_at_both_ends():
    found = change.of(
        rows([{"score": 0.0}, {}, {"loss": 1.0}], [{"score": 1.0}, {"score": 1.0}, {"loss": 1.0}]), seed=0
    )
    assert found["score"]["of"] == 1
    assert found["flips"]["won"] == 1
    assert change.of(rows([{}], [{}]), seed=0) == {}


def test_the_same_rows_and_seed_give_the_same_change():
    data = scored(np.arange(40) % 2, np.arange(40) % 3 > 0)
    assert change.of(data, seed=3) == change.of(data, seed=3)


def test_a_run_needs_no_package_of_an_extra_for_what_it_says(monkeypatch):
    monkeypatch.setattr(statistics.extra, "library", lambda name: pytest.fail(f"{name} is not in every installation"))
    before, after = [{"score": 0.0, "nats": 2.0, "tokens": 2}] * 40, [{"score": 1.0, "nats": 1.0, "tokens": 2}] * 40
    found = change.of(rows(before, after, ["p", "q"] * 20), seed=0)
    assert {"score", "loss", "flips", "words"} == set(found)


def test_the_interval_of_a_loss_covers_the_true_difference_in_95_of_100_runs(monkeypatch):
    """Of rows whose difference depends on their length, so that tokens and rows have different means."""
    monkeypatch.setattr(change, "RESAMPLES", 999)
    gap = lambda tokens: -0.05 + 0.01 * (tokens - 13)
    lengths = 1 + np.random.default_rng(0).poisson(12, 1_000_000)
    true = np.average(gap(lengths), weights=lengths)
    covered = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        tokens = 1 + rng.poisson(12, 60)
        gaps = rng.normal(gap(tokens), 0.3)
        before = [{"nats": 2.0 * n, "tokens": int(n)} for n in tokens]
        after = [{"nats": (2.0 + g) * n, "tokens": int(n)} for n, g in zip(tokens, gaps, strict=True)]
        found = change.of(rows(before, after), seed=seed)["loss"]
        covered += found["low"] <= true <= found["high"]
    assert 930 <= covered <= 970
