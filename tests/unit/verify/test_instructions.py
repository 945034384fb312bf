"""Instructions that can be checked, as the original of IFEval checks them.

`tests/golden/ifeval.jsonl` holds for each of the 25 eight texts that keep it and eight that do not, made of random
pieces, with what google-research's instruction_following_eval says of them (its fork josejg/instruction_following_eval,
with langdetect 1.0.9, NLTK 3.10.4 and Punkt's English model; keywords taken as they stand, where the original takes
them for regular expressions), strictly and loosely.
"""

import gzip
import json
from pathlib import Path

import pytest

from ftjax.errors import UserError
from ftjax.verify import instructions, words

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "ifeval.jsonl"


@pytest.fixture(scope="module")
def golden():
    return [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


def test_every_instruction_has_its_golden_texts(golden):
    assert len(instructions.names()) == 25
    for name in instructions.names():
        assert [case["strict"] for case in golden if case["name"] == name].count(True) == 8
        assert [case["strict"] for case in golden if case["name"] == name].count(False) == 8


@pytest.mark.parametrize("name", instructions.names())
def test_an_instruction_is_kept_where_the_original_says_so(name, golden):
    for case in golden:
        if case["name"] == name:
            assert instructions.strictly(case["text"], [name], [case["kwargs"]]) == [case["strict"]], case
            assert instructions.loosely(case["text"], [name], [case["kwargs"]]) == [case["loose"]], case


def test_the_loose_reading_forgives_first_and_last_lines_and_asterisks():
    names, arguments = ["startend:quotation", "punctuation:no_comma"], [{}, {}]
    assert instructions.strictly('Sure, here:\n**"It is."**\nBye', names, arguments) == [False, False]
    assert instructions.loosely('Sure, here:\n**"It is."**\nBye', names, arguments) == [True, True]
    assert instructions.loosely("Sure, here:\nIt, is.\nBye", names, arguments) == [False, False]


def test_an_empty_response_keeps_nothing():
    for read in (instructions.strictly, instructions.loosely):
        assert read(" \n", ["punctuation:no_comma"], [{}]) == [False]


def test_accuracies_are_of_responses_and_of_instructions():
    found = instructions.accuracy([[True], [True, False, False], [True, True]])
    assert found == {"prompt": pytest.approx(2 / 3), "instruction": pytest.approx(4 / 6)}


def test_all_instructions_of_the_data_are_known_with_their_arguments(shared_data):
    with gzip.open(shared_data / "ifeval" / "input_data_shared.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 340
    seen = set()
    for row in rows:
        names = row["instruction_id_list"]
        padded = [given | {"unused": None} for given in row["kwargs"]]  # as the copy on the Hub has them
        assert len(instructions.strictly(row["prompt"], names, padded)) == len(names)
        seen.update(names)
    assert seen == set(instructions.names())


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("keywords:existance", {}, "Did you mean 'keywords:existence'?"),
        ("keywords:existence", {}, r"takes \['keywords'\], but kwargs holds \[\]"),
        ("punctuation:no_comma", {"n": 1}, r"takes no arguments, but kwargs holds \['n'\]"),
        ("length_constraints:number_words", {"relation": "about", "num_words": 3}, "'about' is not known; give one of"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "one character",
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
            "give 1 to 2",
        ),
    ],
)
def test_an_instruction_that_cannot_be_checked_is_refused(name, arguments, says):
    with pytest.raises(UserError, match=says):
        instructions.strictly("text", [name], [arguments])


def test_names_without_arguments_are_refused():
    with pytest.raises(UserError, match="2 names in instruction_id_list, but 1 in kwargs"):
        instructions.strictly("text", ["punctuation:no_comma"] * 2, [{}])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        *(("", 0), ("one", 1), ("One. Two.", 2), ("One.Two", 1), ("One!? Two", 2), ('"One." Two', 2)),
        *(("Dr. Ray came at 3 p.m. today.", 1), ("J. S. Bach wrote it.", 1), ("Wait... what?", 1)),
        *(("One\nTwo", 1), ("It cost 3.50 dollars. No.", 2), ("What? no.", 2), ("1. One. 2. Two.", 4)),
    ],
)
def test_sentences_are_counted_as_punkt_counts_them(text, wanted):
    assert words.sentences(text) == wanted
