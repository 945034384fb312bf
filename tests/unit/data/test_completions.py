"""Rows whose completions are scored: any preference, and any answer."""

import json
import math

import pytest
from unit.data import test_preferences

from ftjax.data import completions, preferences
from ftjax.errors import UserError

ASKED = [{"role": "user", "content": "Say red."}]
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("red!", "blue."))


def of(**row):
    return completions.from_row(row, "f:1")


def answers(found):
    return [one.completions[0] if isinstance(one.completions[0], str) else one.completions[0][0].content
            for one in found.completions]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "several", "expected"),
    [
        ({"prompt": "a", "completion": " b"}, False, [" b"]),
        ({"prompt": ASKED, "completion": [GOOD]}, False, ["red!"]),
        ({"prompt": ASKED, "completion": "red!", "label": "not a label"}, False, ["red!"]),
        ({"messages": [*ASKED, GOOD]}, False, ["red!"]),
        ({"messages": [*ASKED, BAD, *ASKED, GOOD]}, False, ["red!"]),
        ({"instruction": "Say red.", "output": "red!"}, False, ["red!"]),
        (
            {"conversations": [{"from": "human", "value": "Say red."}, {"from": "gpt", "value": "red!"}]},
            False,
            ["red!"],
        ),
        ({"prompt": "a", "completions": [" b", " c", " b"]}, True, [" b", " c", " b"]),
        ({"prompt": "a", "completions": [" b"], "scores": [0.5]}, True, [" b"]),
        ({"prompt": "a", "completions": [" b", " c"], "ranks": [2, 2]}, True, [" b", " c"]),
        ({"prompt": "a", "completions": '[" b", " c"]'}, True, [" b", " c"]),
        ({"prompt": "a", "chosen": " b", "rejected": " b"}, True, [" b", " b"]),
        ({"prompt": "a", "chosen": " b", "rejected": " c", "score_chosen": 1, "score_rejected": 9}, True, [" b", " c"]),
        ({"chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]}, True, ["red!", "blue."]),
        (
            {"input": {"messages": ASKED}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
            True,
            ["red!", "blue."],
        ),
        ({"instruction": "Say red.", "output": ["red!", "blue."]}, True, ["red!", "blue."]),
        (
            {"question": "Red?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"},
            True,
            ["Yes", "No"],
        ),
    ],
)
def test_every_form_gives_its_completions_in_order_whatever_it_says_of_them(row, several, expected):
    found = of(**row)
    assert (found.several, answers(found)) == (several, expected)
    assert all(one.pairs == () and math.isnan(one.labels[0]) and one.where == "f:1" for one in found.completions)


def test_the_last_answer_of_a_chat_is_the_completion_and_the_rest_its_prompt():
    found = of(messages=[*ASKED, BAD, {"role": "user", "content": "Again."}, GOOD]).completions[0]
    assert [turn.content for turn in found.prompt] == ["Say red.", "blue.", "Again."]


def test_a_file_is_read_with_its_rows_as_they_are_csv_too(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = {"prompt": "a", "completion": " b", "id": 7, "note": None}
    file.write_text(json.dumps(row) + "\n")
    (found,) = completions.read(file)
    assert (found.row, found.where) == (row, f"{file}:1")
    table = tmp_path / "rows.csv"
    table.write_text('prompt,completions\na,"["" b"", "" c""]"\n')
    (found,) = completions.read(table)
    assert answers(found) == [" b", " c"]
    assert found.row == {"prompt": "a", "completions": '[" b", " c"]'}


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"prompt": "a"}, "f:1: no column 'completion'"),
        ({"prompt": "a", "completion": "  "}, "f:1: empty completion"),
        ({"prompt": "a", "completions": []}, "f:1: 0 completions"),
        ({"prompt": "a", "completions": "b"}, "f:1: 'completions' must be a list, not str"),
        ({"prompt": "a", "chosen": " b"}, "f:1: no column 'rejected'"),
        ({"messages": ASKED}, "f:1: "),
        ({"text": "a"}, "f:1: no column 'completion'"),
    ],
)
def test_a_row_without_a_completion_is_named(row, match):
    with pytest.raises(UserError, match=match):
        of(**row)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"none\.jsonl"):
        completions.read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("form", test_preferences.FORMS)
def test_every_form_of_pairs_that_training_reads_is_read_here_with_the_same_texts(form):
    row = test_preferences.FORMS[form][0]
    found, trained = of(**row), preferences.from_row(row, "f:1")
    assert found.several
    assert [one.completions[0] for one in found.completions] == list(trained.completions)
    assert [one.prompt for one in found.completions] == [trained.prompt] * 2
