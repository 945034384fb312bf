"""What each reward of rl/scores/ gives; what all of them owe is in tests/contracts/test_scores.py."""

import json

import pytest

from ftjax.errors import UserError
from ftjax.rl.rewards import Sample, Scorer, terms
from ftjax.rl.scores import exact, instructions, json_schema, length, numeric, pattern


def test_exact_reads_answer_before_reference():
    found = exact.score(
        completions=["a", "b", "c", "d"], answer=["A", None, "x", None], reference=["x", "B", "c", None]
    )
    assert found == [1.0, 1.0, 0.0, None]
    assert exact.score(completions=["b"], reference=["b"]) == [1.0]
    assert exact.score(completions=["b"]) == [None]


def test_numeric_compares_the_last_number_with_a_whole_solution():
    solution = "She has 3 * 4 = <<3*4=12>>12 left.\n#### 12"
    found = numeric.score(completions=["It is 12.", "12, no: 13", "#### 12.0", "none"], answer=[solution] * 4)
    assert found == [1.0, 0.0, 1.0, 0.0]


def test_numeric_names_the_row_whose_answer_has_no_number():
    given = [Sample("p", "1", True, 1, {"answer": answer}) for answer in ("1", "one", None)]
    with Scorer(terms(["numeric"], (), {}), timeout=1.0, workers=1) as scorer:
        found = scorer(given)
    assert found.valid.tolist() == [True, False, False]
    assert [(one.row, one.prompt) for one in found.failures] == [(1, "p")]
    assert "the answer 'one' has no number" in found.failures[0].why


def test_pattern_is_searched_for_anywhere():
    assert pattern.score(completions=["so <b>1</b>", "<b></b>", ""], pattern=r"<b>.+</b>") == [1.0, 0.0, 0.0]
    assert pattern.score(completions=["yes", "yes!"], pattern=r"\Ayes\Z") == [1.0, 0.0]


def test_a_catastrophic_pattern_costs_the_row_that_it_hangs_on():
    given = [Sample("p", text, True, 1, {}) for text in ("aaa", "a" * 60 + "!", "b")]
    with Scorer(terms(["pattern"], (), {"pattern": "^(a+)+$"}), timeout=0.5, workers=1) as scorer:
        found = scorer(given)
    assert [(one.row, one.why) for one in found.failures] == [(1, "took longer than 0.5 s")]
    assert found.scores.tolist() == [1.0, 0.0, 0.0]


def test_json_schema_gives_credit_for_json_that_breaks_its_schema(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"type": "object", "required": ["name"]}))
    texts = ['{"name": 1}', '```json\n{"name": 1}\n```', "{}", "[1]", "{", 'Here: {"name": 1}']
    found = json_schema.score(completions=texts, schema_path=str(file), json_credit=0.25)
    assert found == [1.0, 1.0, 0.25, 0.25, 0.0, 0.0]


def test_the_schema_of_a_row_goes_before_that_of_the_file(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text('{"type": "string"}')
    rows = [{"type": "integer"}, '{"type": "integer"}', None]
    found = json_schema.score(completions=["1", "1", "1"], schema=rows, schema_path=str(file), json_credit=0.0)
    assert found == [1.0, 1.0, 0.0]
    assert json_schema.score(completions=["1", "x"], schema_path="", json_credit=0.5) == [1.0, 0.0]


def test_length_falls_on_both_sides_of_the_target_and_is_zero_above_the_cap():
    tokens = [0, 5, 10, 15, 20, 100]
    score = lambda target, cap: length.score(tokens=tokens, length_target=target, length_cap=cap)
    assert score(10, 0) == [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    assert score(10, 12) == [0.0, 0.5, 1.0, 0.0, 0.0, 0.0]
    assert score(0, 15) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(("target", "cap"), [(0, 0), (-1, 5), (5, -1), (10, 9)])
def test_a_length_that_means_nothing_is_refused(target, cap):
    with pytest.raises(UserError, match="the reward 'length'"):
        length.check(length_target=target, length_cap=cap)


def test_instructions_count_in_shares_or_all_at_once_strictly_or_loosely():
    rows = {
        "instruction_id_list": [["punctuation:no_comma", "startend:quotation"]] * 3 + [None, []],
        "kwargs": [[{}, {}]] * 3 + [None, []],
    }
    texts = ['"so it is"', "so it is", 'Sure, here:\n"so it is"', "x", "x"]
    score = lambda reading, credit: instructions.score(completions=texts, **rows, reading=reading, credit=credit)
    assert score("strict", "share") == [1.0, 0.5, 0.0, None, None]
    assert score("strict", "all") == [1.0, 0.0, 0.0, None, None]
    assert score("loose", "share") == [1.0, 0.5, 1.0, None, None]


def test_rewards_are_summed_over_mixed_data():
    """A row of GSM8K and one of IFEval: what is of the other kind does not apply, and is left out."""
    rows = [{"answer": "#### 4"}, {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}]
    given = [Sample("p", text, True, 3, row) for text, row in zip(("it is 4", "no comma"), rows, strict=True)]
    hyper = {"reading": "strict", "credit": "all"}
    with Scorer(terms(["numeric", "instructions"], (1.0, 0.5), hyper), timeout=1.0, workers=1) as scorer:
        assert scorer(given).scores.tolist() == [1.0, 0.5]
        assert scorer(given[:1]).scores.tolist() == [1.0]  # a batch without any row of the other kind
