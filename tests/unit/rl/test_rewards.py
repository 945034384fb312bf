"""Reward functions over a rollout: a row that fails is masked and named, the others are scored all the same."""

import functools
from pathlib import Path
import sys
import types

import numpy as np
import pytest
import reward_functions

from ftjax.errors import UserError
from ftjax.rl import calls, rewards
from ftjax.rl.rewards import Failure, Sample, Scorer, Term

HYPER = {
    **{"pattern": "x", "schema_path": "", "json_credit": 0.2, "length_target": 4, "length_cap": 0},
    **{"reading": "strict", "credit": "share"},
}


def samples(*texts, **columns):
    rows = [{key: values[at] for key, values in columns.items()} for at in range(len(texts))]
    return [
        Sample(prompt=f"p{at}", completion=text, ended=True, tokens=len(text), row=rows[at])
        for at, text in enumerate(texts)
    ]


def scored(function, given, **also):
    terms = [Term("it", function, 1.0), *(Term(name, one, weight) for name, (one, weight) in also.items())]
    with Scorer(terms, timeout=5.0, workers=1) as scorer:
        return scorer(given)


def test_scores_are_the_weighted_sum_of_the_terms_and_parts_are_before_weights():
    found = scored(reward_functions.by_text, samples("1", "2.5", "yes"), half=(reward_functions.halves, -2.0))
    np.testing.assert_array_equal(found.scores, np.float32([0.0, -0.5, -2.0]))
    np.testing.assert_array_equal(found.parts["it"], np.float32([1.0, 2.5, 1.0]))
    np.testing.assert_array_equal(found.parts["half"], np.float32([0.5, 1.5, 1.5]))
    assert found.valid.all()
    assert found.failures == []
    assert (found.scores.dtype, found.valid.dtype) == (np.float32, bool)


def test_a_term_that_does_not_apply_is_left_out_and_a_row_without_any_is_not_valid():
    given = samples("none", "none", "2", answer=[None, "none", "3"])
    found = scored(reward_functions.by_text, given, exact=(rewards.terms(["exact"], (), {})[0].function, 0.5))
    np.testing.assert_array_equal(found.valid, [False, True, True])
    np.testing.assert_array_equal(found.scores, np.float32([0.0, 0.5, 2.0]))
    assert found.failures == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise", r"KeyError: 'no such\nkey'"),
        ("nan", "returned nan; a score must be finite in float32"),
        ("inf", "returned inf; a score must be finite in float32"),
        ("1e39", "returned 1e+39; a score must be finite in float32"),
        ("text", "returned 'good', a str; a score is a number or None"),
        ("huge", "returned a int that is no number (OverflowError: int too large to convert to float)"),
    ],
)
def test_a_row_that_fails_is_masked_and_named_and_the_others_keep_their_scores(text, why):
    found = scored(reward_functions.by_text, samples("1", text, "3"), half=(reward_functions.halves, 1.0))
    assert found.failures == [Failure(1, "it", why, "p1")]
    np.testing.assert_array_equal(found.valid, [True, False, True])
    np.testing.assert_array_equal(found.scores, np.float32([1.5, 0.0, 3.5]))
    assert np.isnan(found.parts["it"][1])
    assert found.parts["half"][1] == len(text) / 2


def test_a_batched_call_that_raises_is_tried_again_row_by_row():
    counter = reward_functions.Counter()
    assert len(scored(counter, samples("1", "raise", "3")).failures) == 1
    assert counter.sizes == [3, 1, 1, 1]


def test_scores_may_come_as_an_array():
    found = scored(lambda completions: np.arange(len(completions), dtype=np.float32), samples("a", "b"))
    np.testing.assert_array_equal(found.scores, [0.0, 1.0])


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda completions: completions[:1], "returned 1 scores for 2 completions"),
        (lambda completions: len(completions) / 2, "returned a float for 2 completions"),
        (lambda completions: dict.fromkeys(completions, 1.0), "returned a dict for 2 completions"),
        (reward_functions.by_text, r"\(reward_functions:by_text\) fails for all 2 rows, the first with: ValueError"),
    ],
)
def test_a_function_that_is_wrong_for_every_row_stops_the_run(function, says):
    with pytest.raises(UserError, match=says):
        scored(function, samples("a", "b"))


def test_a_sum_beyond_float32_is_a_failure_and_not_infinite():
    found = scored(reward_functions.by_text, samples("3e38", "1"), more=(reward_functions.by_text, 1.0))
    assert [(one.row, one.term) for one in found.failures] == [(0, "sum")]
    np.testing.assert_array_equal(found.scores, np.float32([0.0, 2.0]))


def test_no_completions_are_scored_as_none():
    assert scored(reward_functions.by_text, []).scores.shape == (0,)


def test_a_function_is_given_the_columns_that_it_takes_and_no_others():
    seen = {}

    def some(completions, answer, *, level=3, **_):
        seen.update(some=(answer, level, sorted(_)))
        return [0.0] * len(completions)

    def few(prompts, tokens, absent, other=7):
        seen.update(few=(prompts, tokens, absent, other))
        return [0.0] * len(prompts)

    scored(some, samples("a", "bb", answer=["1", "2"], level=[4, 5], site=["x", "y"]), few=(few, 1.0))
    assert seen["some"] == (["1", "2"], [4, 5], ["ended", "prompts", "site", "tokens"])
    assert seen["few"] == (["p0", "p1"], [1, 2], [None, None], 7)


def test_a_column_that_only_some_rows_have_is_none_in_the_others():
    rows = [sample._replace(row={"answer": "1"} if at else {}) for at, sample in enumerate(samples("1", "1"))]
    found = scored(rewards.terms(["numeric"], (), {})[0].function, rows)
    np.testing.assert_array_equal(found.valid, [False, True])


def test_a_column_cannot_take_the_place_of_a_hyper_parameter():
    def score(*, completions, scale: float):
        return [scale] * len(completions)

    found = scored(functools.partial(score, scale=2.0), samples("a", scale=[9.0]))
    assert found.scores[0] == 2.0


def test_a_column_with_a_name_of_ours_is_refused_where_it_could_be_meant():
    given = samples("abcd", tokens=[7])
    assert scored(reward_functions.by_text, [given[0]._replace(completion="1")]).valid.all()
    with pytest.raises(UserError, match=r"takes 'tokens'.*rename the column"):
        scored(reward_functions.halves, given)


def test_the_columns_of_the_data_are_checked_before_a_run():
    terms = rewards.terms(["numeric", "exact", "length"], (), HYPER)
    rewards.check_columns(terms, {"answer", "question"})
    with pytest.raises(UserError, match="'numeric' needs a column answer; the data has reference"):
        rewards.check_columns(terms, {"reference"})
    with pytest.raises(UserError, match="'exact' needs a column answer or reference; the data has question"):
        rewards.check_columns(terms[1:], {"question"})


def test_a_function_marked_each_is_called_in_processes_and_fails_by_row_alike():
    given = samples("1", "raise", "none", "4")
    found, batched = scored(reward_functions.alone, given), scored(reward_functions.by_text, given)
    assert found.failures == batched.failures
    assert len(found.failures) == 1
    np.testing.assert_array_equal(found.scores, batched.scores)
    np.testing.assert_array_equal(found.valid, batched.valid)


def test_a_function_that_processes_cannot_find_is_refused_at_once():
    def local(completions):
        return [0.0] * len(completions)

    local.each = True
    with pytest.raises(UserError, match="define it with `def` at the top of a module"):
        Scorer([Term("it", local, 1.0)], timeout=1.0, workers=1)


def test_names_are_files_of_scores_or_functions_of_the_user():
    terms = rewards.terms(("length", "reward_functions:halves"), (2.0, 0.5), HYPER)
    assert [(term.name, term.weight) for term in terms] == [("length", 2.0), ("reward_functions:halves", 0.5)]
    assert terms[1].function is not None
    found = scored(terms[1].function, samples("abcd"))
    assert found.scores[0] == 2.0
    assert [term.weight for term in rewards.terms(("exact", "numeric"), (), HYPER)] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("names", "weights", "hyper", "says"),
    [
        (("numerik",), (), HYPER, "no reward 'numerik'. Did you mean 'numeric'?"),
        ((), (), HYPER, "name at least one"),
        (("exact", "exact"), (), HYPER, "each once"),
        (("exact",), (1.0, 2.0), HYPER, "give one for each of"),
        (("exact",), (float("nan"),), HYPER, "give finite numbers"),
        (("length",), (), {"length_cap": 3}, "takes length_target, which the rewards' section does not hold"),
        (("length",), (), HYPER | {"length_target": 0}, "give one of them, or both, a number of tokens"),
        (("length",), (), HYPER | {"length_target": 4.5}, "is 4.5; give int"),
        (("length",), (), HYPER | {"length_cap": 2}, "length_target 4 is above length_cap 2"),
        (("pattern",), (), HYPER | {"pattern": "("}, "'(' is no regular expression"),
        (("pattern",), (), HYPER | {"pattern": ""}, "an empty pattern"),
        (("json_schema",), (), HYPER | {"schema_path": "nowhere.json"}, "'nowhere.json' cannot be read"),
        (("json_schema",), (), HYPER | {"json_credit": 2.0}, "json_credit is 2.0; give 0 to 1"),
        (("instructions",), (), HYPER | {"credit": "some"}, "give 'share' or 'all'"),
        (("reward_functions:halve",), (), HYPER, "Did you mean 'halves'?"),
        (("reward_functions:Counter",), (), HYPER, "name a function, or an instance"),
        (("builtins:max",), (), HYPER, "does not say what it takes"),
        (("reward_functions:os.name",), (), HYPER, "name a function, or an instance"),
    ],
)
def test_what_is_wrong_with_the_section_is_said_at_once(names, weights, hyper, says):
    with pytest.raises(UserError) as raised:
        rewards.terms(names, weights, hyper)
    assert says in str(raised.value)


def test_a_hyper_parameter_of_a_users_function_may_have_a_default(monkeypatch):
    def own(completions, *, scale: float = 3.0):
        return [scale] * len(completions)

    monkeypatch.setattr(reward_functions, "own", own, raising=False)
    for hyper, wanted in (({}, 3.0), ({"scale": 2}, 2.0)):
        (term,) = rewards.terms(("reward_functions:own",), (), hyper)
        assert scored(term.function, samples("a")).scores[0] == wanted


def test_the_functions_of_the_page_on_rewards_are_scored(monkeypatch):
    page = (Path(__file__).resolve().parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8")
    module = types.ModuleType("rewards_of_the_page")
    exec(page.split("```python")[1].split("```")[0], module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    terms = rewards.terms(("rewards_of_the_page:polite", "rewards_of_the_page:close"), (1.0, 0.1), {"scale": 2.0})
    with Scorer(terms, timeout=1.0, workers=1) as scorer:
        found = scorer(samples("yes, please", "no", answer=["yes", None]))
    np.testing.assert_allclose(found.scores, [1.0 - 0.1 * 2.0 * 8, 0.0], rtol=1e-6)


def test_an_exception_that_cannot_be_printed_is_still_named():
    class OddError(Exception):
        def __str__(self):
            raise RuntimeError

    assert "OddError" in calls.said(OddError())
