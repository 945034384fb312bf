"""Answers that equal, and the number that a text ends on."""

from decimal import Decimal
import gzip
import json

import pytest

from ftjax.errors import UserError
from ftjax.verify import answers

NUMBERS = {
    "72": "72",
    "The answer is 72.": "72",
    "3 and 4": "4",
    "#### 5 apples and 6 pears": "5",
    "#### 1 wait\n#### 2": "2",
    "1,234,567 people": "1234567",
    "1,2,3": "3",
    "12,34": "34",
    "$1,234.50": "1234.50",
    "-$5": "-5",
    "$-5": "-5",
    "€ 7": "7",
    "50%": "50",
    "10-5": "5",
    "10 - 5": "5",
    "x = -5": "-5",
    "(-5)": "-5",
    "−5": "-5",
    "3.": "3",
    ".5": "0.5",
    "so...5": "5",
    "1e3": "1000",
    "2e-1": "0.2",
    "5e": "5",
    "1e9999": "1e9999",
    "1e-999999": "1e-999999",
    "5kg": "5",
    "H2O and x2": None,
    "v1.5.2": None,
    "1/2": "2",
    "答案是72。": "72",
    "**72**": "72",
    "\\boxed{72}": "72",
    "": None,
    "none": None,
    "72 #### none": None,
}


@pytest.mark.parametrize(("text", "wanted"), NUMBERS.items())
def test_a_text_ends_on_a_number(text, wanted):
    assert answers.number(text) == (None if wanted is None else Decimal(wanted))


@pytest.mark.parametrize(
    "answer", ["72", 72, 72.0, "#### 72", "8 * 9 = <<8*9=72>>72 clips.\n#### 72", Decimal("72.00")]
)
def test_an_answer_is_a_number_or_a_text_that_ends_on_one(answer):
    assert answers.same_number("It is $72.0", answer)
    assert not answers.same_number("It is 73", answer)
    assert not answers.same_number("It is 0.72", answer)
    assert not answers.same_number("", answer)


def test_numbers_are_compared_as_decimals():
    assert answers.same_number("0.10", 0.1)
    assert answers.same_number("0.3", "0.30")
    assert not answers.same_number("0.30000000000000001", "0.3")


@pytest.mark.parametrize("answer", ["none", "", None, True, float("nan"), [72]])
def test_an_answer_without_a_number_is_refused(answer):
    with pytest.raises(UserError, match="has no number; give a number"):
        answers.same_number("72", answer)


def test_every_solution_of_gsm8k_is_right_and_none_is_with_another_number(shared_data):
    with gzip.open(shared_data / "gsm8k_train" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        solutions = [json.loads(line)["answer"] for line in file]
    assert len(solutions) == 7473
    for solution in solutions:
        working, _, final = solution.rpartition("####")
        value = Decimal(final.strip().replace(",", ""))
        assert answers.number(solution) == value
        assert answers.same_number(f"So the answer is ${value:,}.", solution)
        assert not answers.same_number(f"{working}#### {value + 1}", solution)
        assert not answers.same_number(f"{working}#### {value}0", solution) or value == 0
        assert not answers.same_number(f"#### {-value}", solution) or value == 0


@pytest.mark.parametrize(
    ("text", "answer", "wanted"),
    [
        *((" Paris.\n", "paris", True), ('"Paris"', "Paris", True), ("New   York", "new\nyork", True)),
        *(("Ｐａｒｉｓ", "Paris", True), ("STRASSE", "straße", True), ("Zu\u0308rich", "Zürich", True)),
        *(("Paris, France", "Paris", False), ("-5", "5", False), ("1.5", "15", False), ("", "Paris", False)),
        *(("London", ["Paris", "London"], True), ("Rome", ["Paris", "London"], False), ("72", 72, True)),
        *(("", "?", False), ("?", "!", False), ("?", " ? ", True), ("", "", True), ("yes!", "Yes", True)),
    ],
)
def test_an_exact_answer_may_differ_in_case_and_in_what_is_around_it(text, answer, wanted):
    assert answers.equal(text, answer) is wanted
