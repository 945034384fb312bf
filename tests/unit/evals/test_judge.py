"""What a judge is asked and what its words mean; what its verdicts say, and what people's say of it."""

import json

import numpy as np
import pytest

from ftjax.data import pairs
from ftjax.errors import UserError
from ftjax.evals import corrected, judge, judge_report

PAIR = pairs.Pair("How many legs has a spider?", "Eight.", "Six, as an insect.", "", (), "here:1")
TERMS = {"level": 0.95, "resamples": 1000, "seed": 0}


def judged(first, second):
    """What two verdicts by name come to: "aa" is a by both orders."""
    names = {"a": "a", "b": "b", "t": "tie", "-": None}
    found = (names[first], names[second])
    return judge.Judged(found, (), judge.of_orders(*found))


def many(verdicts, votes=None, **changes):
    """Pairs of prompts of their own with the two verdicts of each, and perhaps votes."""
    found = [
        PAIR._replace(prompt=f"{n}?", human=votes[n] if votes else (), where=f"here:{n}", **changes)
        for n in range(len(verdicts))
    ]
    return found, [judged(*one) for one in verdicts]


def test_a_pair_is_asked_in_both_orders_and_the_verdict_is_turned_back():
    first, second = judge.pairwise(PAIR, rubric="")
    assert [first.first, second.first] == ["a", "b"]
    at = lambda asked, text: asked.messages[1][1].index(text)
    assert at(first, "Eight.") < at(first, "Six")
    assert at(second, "Six") < at(second, "Eight.")
    assert first.messages[0] == second.messages[0]
    read = lambda one, other: judge.read("pairwise", (first, second), (one, other))
    assert read("[[A]]", "[[B]]") == judge.Judged(("a", "a"), (), "a")
    assert read("[[A]]", "[[A]]") == judge.Judged(("a", "b"), (), "tie")
    assert read("[[B]]", "[[A]]").winner == "b"
    assert read("[[C]]", "[[C]]").winner == "tie"
    assert read("[[A]]", "who knows") == judge.Judged(("a", None), (), None)


def test_a_rubric_takes_the_place_of_the_usual_aspects_and_a_reference_is_shown():
    for ask in (judge.pairwise, judge.single):
        plain = ask(PAIR, rubric="")[0].messages
        assert "helpful" in plain[0][1]
        assert "Reference" not in plain[1][1]
        ruled = ask(PAIR._replace(reference="8"), rubric="Only brevity counts.")[0].messages
        assert "Only brevity counts." in ruled[0][1]
        assert "helpful" not in ruled[0][1]
        assert "[Reference answer begins]\n8\n" in ruled[1][1]


def test_each_answer_is_rated_by_itself():
    asked = judge.single(PAIR, rubric="")
    assert "Eight." in asked[0].messages[1][1]
    assert "Six" not in asked[0].messages[1][1]
    assert judge.read("single", asked, ("[[8]]", "[[7.5]]")) == judge.Judged((), (8.0, 7.5), "a")
    assert judge.read("single", asked, ("[[8]]", "[[8.1]]")).winner == "tie"
    assert judge.read("single", asked, ("[[8]]", "none")).winner is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(("So [[A]]", "A"), ("[[C]].", "C"), ("[[B]] and again [[B]]", "B")),
        *(("[[A]] or [[B]]", None), ("[A]", None), ("A", None), ("", None), ("[[D]]", None), ("[[a]]", None)),
    ],
)
def test_a_verdict_is_one_of_three_tokens_and_never_guessed(text, found):
    assert judge.verdict(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(("Rating: [[7]]", 7.0), ("[[6.5]]", 6.5), ("[9]", None), ("[3] but [[4]]", 4.0), ("[[10]]", 10.0)),
        *(("[[3]] or maybe [[8]]", None), ("[[8]], so [[8.0]]", 8.0), ("As [1] says, the answer is rated 9.", None)),
        *(("[[7]] and [[11]]", None), ("[[7]] and [[-3]]", None), (f"[[{'9' * 50_000}", None), ("[[7.]]", 7.0)),
        *(("[[0]]", None), ("[[11]]", None), ("7", None), ("[[seven]]", None), ("", None), ("[[-3]]", None)),
    ],
)
def test_a_rating_is_the_one_number_in_two_brackets_from_one_to_ten_and_never_guessed(text, found):
    assert judge.rating(text) == found


def test_the_row_of_gpt_4_in_mt_benchs_table_adds_up():
    # 80 questions: consistent 65.0 %, biased to the first 30.0, to the second 5.0, no verdict 0.
    verdicts = many(["aa"] * 30 + ["tt"] * 22 + ["ab"] * 20 + ["at"] * 4 + ["ba"] * 4)[1]
    found = judge_report.position(verdicts, np.arange(80), level=0.95)
    shares = [found[name] for name in ("consistent", "biased_to_first", "biased_to_second", "unparsable")]
    np.testing.assert_allclose(shares, [0.65, 0.3, 0.05, 0.0])
    assert found["flip_rate"]["value"] == pytest.approx(0.35)
    assert found["reversals"] == 24
    assert found["first_preferred"]["value"] == pytest.approx((30 + 40 + 4) / (60 + 40 + 4 + 8))


def test_a_pair_without_a_verdict_is_counted_and_left_out():
    found = judge_report.report(*many(["aa", "a-", "--", "bb", "ab"]), **TERMS)
    assert (found["judged"], found["unparsable_pairs"], found["unparsable_answers"], found["answers"]) == (3, 2, 3, 10)
    assert (found["wins"], found["ties"], found["losses"]) == (1, 1, 1)
    assert found["win_rate"]["value"] == 0.5
    assert found["human"] is None
    place = found["position"]
    assert place["unparsable"] == pytest.approx(0.4)
    assert sum(place[x] for x in ("consistent", "biased_to_first", "biased_to_second", "unparsable")) == 1
    with pytest.raises(UserError, match="no verdict on any of 2 pairs"):
        judge_report.report(*many(["--", "a-"]), **TERMS)


def test_pairs_of_one_prompt_make_the_win_rate_less_sure():
    apart, verdicts = many(["aa", "aa", "bb", "bb"] * 20)
    wide = judge_report.report([one._replace(prompt=str(n // 2)) for n, one in enumerate(apart)], verdicts, **TERMS)
    plain = judge_report.report(apart, verdicts, **TERMS)
    width = lambda found: found["win_rate"]["high"] - found["win_rate"]["low"]
    assert width(wide) / width(plain) == pytest.approx(2**0.5, rel=0.03)


def test_pairs_of_one_prompt_make_every_share_less_sure():
    kinds = ["aa", "ab", "bb", "aa", "bb"] * 10
    votes = [("a", "a"), ("b", "a"), ("b",), ("b", "a", "b"), ("tie", "b", "b")] * 10
    apart, verdicts = many([one for one in kinds for _ in range(4)], [one for one in votes for _ in range(4)])
    together = [one._replace(prompt=str(n // 4)) for n, one in enumerate(apart)]
    plain, wide = (judge_report.report(one, verdicts, **TERMS) for one in (apart, together))
    named = lambda found: {
        **{name: found["position"][name] for name in ("flip_rate", "first_preferred")},
        **{name: one for name, one in found["human"].items() if isinstance(one, dict)},
    }
    assert len(named(plain)) == 8
    for name, one in named(wide).items():
        before = named(plain)[name]
        assert one["value"] == before["value"]
        if name == "first_preferred":  # the two orders of a pair were together before
            assert one["high"] - one["low"] > before["high"] - before["low"]
        else:
            assert (one["high"] - one["low"]) / (before["high"] - before["low"]) == pytest.approx(2, rel=0.12), name
    one_prompt = named(judge_report.report([one._replace(prompt="same") for one in apart], verdicts, **TERMS))
    assert one_prompt["flip_rate"]["low"] < 0.05  # as of one value
    assert one_prompt["flip_rate"]["high"] > 0.8
    assert (one_prompt["kappa"]["low"], one_prompt["kappa"]["high"]) == (-1, 1)
    assert (one_prompt["corrected_win_rate"]["low"], one_prompt["corrected_win_rate"]["high"]) == (0, 1)


def test_the_interval_of_kappa_covers_it_where_pairs_share_prompts():
    rng, covered = np.random.default_rng(0), []
    for _ in range(400):
        people = rng.integers(0, 2, 60)[:, None].repeat(5, axis=1)
        right = (rng.random(60) < 0.8)[:, None].repeat(5, axis=1)  # the judge errs on whole prompts: kappa is .6
        judges = np.where(right, people, 1 - people)
        labels = [("ab"[x], "ab"[y], n // 5) for n, (x, y) in enumerate(zip(people.flat, judges.flat, strict=True))]
        found = judge_report._kappa(labels, 0.95)
        covered.append(found.low <= 0.6 <= found.high)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_votes_that_are_split_on_every_pair_are_reported():
    found = judge_report.report(*many(["aa", "bb", "ab"], [("a", "b")] * 3), **TERMS)["human"]
    assert (found["pairs"], found["without_majority"], found["agreement"]["value"]) == (3, 3, pytest.approx(1 / 3))
    assert np.isnan(found["kappa"]["value"])
    assert (found["agreement_with_majority"], found["win_rate_by_people"], found["corrected_win_rate"]) == (None,) * 3


def test_a_judge_that_loves_length_is_found_out():
    found, verdicts = many(["aa", "bb", "aa", "tt"])
    shaped = [
        one._replace(a="x" * a, b="x" * b) for one, (a, b) in zip(found, [(9, 1), (1, 9), (5, 5), (9, 1)], strict=True)
    ]
    length = judge_report.report(shaped, verdicts, **TERMS)["length"]
    assert length["longer_wins"]["value"] == 1
    assert length["longer_wins"]["of"] == 2
    assert length["spearman"] == pytest.approx(0.5)


def test_ratings_are_compared_as_pairs():
    found, _ = many(["aa"] * 3)
    rated = [judge.Judged((), two, judge.of_ratings(*two)) for two in ((8.0, 6.0), (7.0, 7.0), (None, 5.0))]
    report = judge_report.report(found, rated, **TERMS)
    assert (report["ratings"]["a"], report["ratings"]["b"], report["ratings"]["difference"]["value"]) == (7.5, 6.5, 1.0)
    assert report["position"] is None
    assert report["unparsable_answers"] == 1


def test_people_agree_with_the_judge_and_with_each_other():
    votes = [("a", "a", "b"), ("a",), ("tie", "b"), ("b", "b", "b"), ()]
    found = judge_report.people(list(zip(*many(["aa", "bb", "ab", "bb", "aa"], votes), strict=True)), level=0.95)
    assert (found["pairs"], found["votes"], found["without_majority"]) == (4, 9, 1)
    assert found["agreement"]["value"] == pytest.approx((2 / 3 + 0 + 1 / 2 + 1) / 4)
    assert found["agreement_without_ties"]["value"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert found["agreement_with_majority"]["value"] == pytest.approx(2 / 3)
    assert found["between_people"]["value"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert found["win_rate_by_people"] == pytest.approx(2 / 3)


def test_the_verdict_in_words_says_undecided_where_the_interval_holds_one_half():
    report = lambda verdicts: judge_report.in_words(judge_report.report(*many(verdicts), **TERMS), a="new", b="old")
    assert report(["aa"] * 70 + ["bb"] * 30) == (
        "new wins 70.0% of 100 pairs against old (60.4% to 78.1%; a tie is half); "
        "0% of the verdicts change when the answers swap places"
    )
    assert report(["aa"] * 5 + ["ab"] * 5).startswith("undecided: new wins 75.0% of 10 pairs")


def votes(rng, count, *, accuracy, first):
    """True preferences at a win rate of .6, and the verdicts of a judge with this accuracy and bias, swapped or not."""
    truth = rng.random(count) < 0.6
    orders = []
    for a_first in (True, False):
        right = np.where(rng.random(count) < accuracy, truth, ~truth)
        orders.append(np.where(rng.random(count) < first, a_first, right))
    return truth, orders


@pytest.mark.parametrize(("accuracy", "first"), [(0.85, 0.3), (0.75, 0.5)])
def test_the_corrected_win_rate_covers_the_true_one(accuracy, first):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        truth, orders = votes(rng, 600, accuracy=accuracy, first=first)
        human = np.where(np.arange(600) < 200, truth * 1.0, np.nan)
        found.append(corrected.rogan_gladen(np.mean(orders, axis=0), human, level=0.95))
    assert 0.93 <= np.mean([one.low <= 0.6 <= one.high for one in found]) <= 0.97
    assert np.mean([one.value for one in found]) == pytest.approx(0.6, abs=0.005)


@pytest.mark.parametrize(("accuracy", "first"), [(0.85, 0.3), (0.75, 0.5)])
def test_swapping_and_correcting_recover_the_win_rate_that_the_judge_hides(accuracy, first):
    truth, orders = votes(np.random.default_rng(1), 20_000, accuracy=accuracy, first=first)
    names = [["a" if one else "b" for one in order] for order in orders]
    winners = [judge.of_orders(*two) for two in zip(*names, strict=True)]
    scores = np.array([judge_report.SCORES[one] for one in winners])
    found = corrected.rogan_gladen(scores, np.where(np.arange(20_000) < 4000, truth * 1.0, np.nan), level=0.95)
    assert abs(found.value - 0.6) < found.high - found.value  # 2 standard errors
    assert abs(scores.mean() - 0.6) > 0.04
    alone = np.mean(np.where(np.random.default_rng(2).random(20_000) < 0.75, truth, ~truth))
    assert alone == pytest.approx(0.55, abs=0.01)


def test_a_judge_that_never_errs_is_not_corrected_and_one_that_guesses_cannot_be():
    human = np.array([1.0, 0, 1, 0, 1, np.nan, np.nan])
    found = corrected.rogan_gladen(np.array([1.0, 0, 1, 0, 1, 1, 0]), human, level=0.95)
    assert found.value == pytest.approx(4 / 7)
    assert (found.of_wins, found.of_losses, found.labelled) == (1.0, 0.0, 5)
    assert corrected.rogan_gladen(np.full(7, 0.5), human, level=0.95) is None
    assert corrected.rogan_gladen(np.array([1.0, 0]), np.array([1.0, 0]), level=0.95) is None


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "x", "a": "y"}, "no 'b'; its columns are prompt, a"),
        ({"prompt": "x", "a": "y", "b": 3}, "b is 3; it must be the text"),
        ({"prompt": "", "a": "y", "b": "z"}, "prompt is ''"),
        ({"prompt": "x", "a": "y", "b": "z", "human": "c"}, "human is 'c'; it must be one of a, b, tie"),
        ({"prompt": "x", "a": "y", "b": "z", "reference": 1}, "reference is 1"),
        ({"prompt": "x \ud800", "a": "y", "b": "z"}, "prompt holds half of a surrogate pair"),
        ({"prompt": "x", "a": "y", "b": "z\udfff"}, "b holds half of a surrogate pair"),
    ],
)
def test_a_row_that_is_no_pair_is_named_with_its_line(tmp_path, row, complaint):
    file = tmp_path / "pairs.jsonl"
    good = {"prompt": [{"role": "user", "content": "x"}], "a": "y", "b": "z", "human": ["a", "tie"]}
    file.write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    with pytest.raises(UserError, match=f"pairs.jsonl:2: .*{complaint}"):
        pairs.read(file)
    file.write_text(json.dumps(good))
    assert pairs.read(file)[0][:5] == ("x", "y", "z", "", ("a", "tie"))
