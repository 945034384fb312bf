"""Metrics of answers against their libraries, published values and cases worked by hand."""

import gzip
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu

from ftjax.errors import UserError
from ftjax.evals import calibration, choices, form, overlap
from tests import bases

ANSWERS = ["the cat sat on the mat", "there is a dog in the garden", "Hello, world! It's 3.5 km away."]
REFERENCES = ["the cat is on the mat", "a dog is in the garden", "Hello world, it is 3.5 km away."]


def test_bleu_of_three_sentences_is_sacrebleus_with_its_signature():
    found = overlap.bleu(ANSWERS, REFERENCES)
    assert float(found) == pytest.approx(29.382169, abs=1e-6)
    np.testing.assert_allclose(found.each, [37.991784, 32.172944, 34.329452], atol=1e-6)
    version = sacrebleu.__version__
    assert found.signature == f"BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"


def test_chrf_of_three_sentences_is_sacrebleus():
    assert overlap.chrf(ANSWERS, REFERENCES).score == pytest.approx(64.293409, abs=1e-6)
    found = overlap.chrf(ANSWERS, REFERENCES, word_order=2)
    assert found.score == pytest.approx(65.027525, abs=1e-6)
    assert "nw:2" in found.signature


def test_rouge_of_three_sentences_is_rouge_scores():
    found = overlap.rouge(ANSWERS, REFERENCES)
    wanted = {
        "rouge1": [0.833333, 0.923077, 0.875],
        "rouge2": [0.6, 0.545455, 0.714286],
        "rougeL": [0.833333, 0.769231, 0.875],
    }
    for name, each in wanted.items():
        np.testing.assert_allclose(found[name].each, each, atol=1e-6)
        assert found[name].score == pytest.approx(np.mean(each), abs=1e-6)
        assert found[name].signature.startswith(f"{name}|F1|")


def test_rouge_lsum_takes_lines_for_sentences_and_rouge_l_does_not():
    found = overlap.rouge(["the dog ran.\nthe cat sat down."], ["the cat sat.\nthe dog ran fast."])
    assert found["rougeL"].score == pytest.approx(0.428571, abs=1e-6)
    assert found["rougeLsum"].score == pytest.approx(0.857143, abs=1e-6)


def test_several_references_of_uneven_number_all_count_for_bleu_and_the_best_for_the_others():
    several = [["the cat is on the mat", "the cat sat on the mat"], ["a dog is in the garden"], REFERENCES[2]]
    columns = [[REFERENCES[0], REFERENCES[1], REFERENCES[2]], ["the cat sat on the mat", None, None]]
    assert overlap.bleu(ANSWERS, several).score == sacrebleu.corpus_bleu(ANSWERS, columns).score
    assert overlap.bleu(ANSWERS, several).score > overlap.bleu(ANSWERS, REFERENCES).score
    assert overlap.rouge(ANSWERS, several)["rouge2"].each[0] == 1
    assert overlap.exact_match(ANSWERS, several).each == (1, 0, 0)
    assert overlap.f1(ANSWERS, several).each[0] == 1


def test_bleu_is_that_of_sacrebleus_own_tests(shared_data):
    cases = json.loads((shared_data / "bleu_fixtures" / "sacrebleu_cases.json").read_text())["corpus"]
    references = [list(own) for own in zip(*cases["references_by_stream"], strict=True)]
    checked = 0
    for case in cases["cases"]:
        if set(case["kwargs"]) <= {"tokenize"}:
            found = overlap.bleu(cases["hypotheses"], references, **case["kwargs"])
            assert found.score == pytest.approx(case["bleu"], abs=1e-6)
            checked += 1
    assert checked == 4
    assert overlap.bleu(["", "", ""], references).score == cases["all_empty_hypotheses"]


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_is_that_of_the_official_script(shared_data, stemmer):
    folder = shared_data / "rouge_fixtures"
    wanted = json.loads((folder / "expected_rouge155.json").read_text())["porter_stemmer" if stemmer else "no_stemmer"]
    texts = [(folder / f"{name}.txt").read_text().splitlines() for name in ("prediction", "target")]
    found = overlap.rouge(*texts, stemmer=stemmer)
    for name, rows in wanted.items():
        np.testing.assert_allclose(found[name].each, [row[2] for row in rows], atol=1e-5)


def test_rouge_of_many_rows_is_the_mean_over_rows(shared_data):
    from rouge_score import rouge_scorer

    folder = shared_data / "rouge_fixtures"
    read = lambda name: gzip.decompress((folder / f"{name}_large.txt.gz").read_bytes()).decode().splitlines()
    answers, targets = read("prediction")[:200], read("target")[:200]
    scorer = rouge_scorer.RougeScorer(["rouge2", "rougeL"])
    direct = [scorer.score(target, answer) for target, answer in zip(targets, answers, strict=True)]
    found = overlap.rouge(answers, targets)
    for name in ("rouge2", "rougeL"):
        assert found[name].score == pytest.approx(np.mean([one[name].fmeasure for one in direct]), abs=1e-9)


def test_exact_match_counts_letters_and_the_normalised_one_words():
    answers, references = [" Paris\n", "paris.", "the Paris", "Lyon"], ["Paris"] * 4
    assert overlap.exact_match(answers, references).each == (1, 0, 0, 0)
    assert overlap.normalised_match(answers, references).each == (1, 1, 1, 0)


def test_f1_of_words_is_squads():
    found = overlap.f1(["the cat sat down", "", "", "dog dog"], ["A cat sat.", "", "cat", "dog"])
    np.testing.assert_allclose(found.each, [2 * 2 / (3 + 2), 1, 0, 2 / 3])


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge", "exact_match", "normalised_match", "f1"])
def test_an_empty_set_different_lengths_and_a_single_text_are_refused(name):
    score = getattr(overlap, name)
    with pytest.raises(UserError, match="2 answers and 1 references"):
        score(["a", "b"], ["a"])
    with pytest.raises(UserError, match="no answer"):
        score([], [])
    with pytest.raises(ValueError, match="not one text"):
        score("ab", "ab")
    with pytest.raises(ValueError, match="no reference"):
        score(["a"], [[]])


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UserError, match=r"rouge-score; install it: pip install 'ftjax\[eval\]'"):
        overlap.rouge(["a"], ["a"])


def test_measuring_starts_fast_because_libraries_are_imported_when_they_are_asked():
    names = ("choices", "corrected", "form", "judge_report", "overlap", "sequential", "statistics", "verdict")
    slow = {"httpx", "krippendorff", "nltk", "rouge_score", "sacrebleu", "scipy", "statsmodels"}
    code = f"import sys; from ftjax.evals import {', '.join(names)}; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=bases.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_variety_is_different_n_grams_over_all_of_them():
    answers = ["a b a b", "a b", ""]
    assert form.distinct(answers, n=1).score == pytest.approx(2 / 6)
    assert form.distinct(answers, n=2).score == pytest.approx(2 / 4)  # ab ba ab | ab
    np.testing.assert_allclose(form.distinct(answers, n=2).each, [2 / 3, 1, 0])
    assert form.length(answers).score == 2


def test_a_number_is_the_whole_answer_in_any_usual_way_to_write_it():
    written = ["1,234.5", "$1234.50", "+1.2345e3", "1234.5%", "1234.5.", " 1234.5 "]
    assert form.numeric_match(written, [1234.5] * 6, relative=0).score == 1
    other = ["12,34.5", "1234.5 km", "", ".", "-1234.5", "1e", "1235"]
    assert form.numeric_match(other, [1234.5] * 7, relative=0).score == 0
    assert form.numeric_match(["1235", "-.5"], [1234.5, -0.5], relative=1e-3).score == 1


def test_json_is_the_whole_answer_and_strict():
    good = ['{"a": [1, null]}', "3", ' "x" ']
    bad = ["", "{'a': 1}", '```json\n{"a": 1}\n```', "NaN", '{"a": Infinity}', '{"a": 1} and so on', "[" * 100_000]
    assert form.json_valid(good + bad).each == (1,) * len(good) + (0,) * len(bad)


def test_json_that_follows_its_schema_is_counted():
    number = '{"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}'
    answers = ['{"a": 1}', '{"a": "1"}', "{}", '```json\n{"a": 1}\n```', '{"a": 1}']
    schemas = [*[number] * 4, '{"type": "array"}']
    assert form.json_follows(answers, schemas).each == (1, 0, 0, 0, 0)
    with pytest.raises(UserError, match="5 answers and 1 references"):
        form.json_follows(answers, schemas[:1])


def test_instructions_that_answers_keep_are_counted_by_answer_and_by_instruction():
    comma, quotes = ("punctuation:no_comma", {}), ("startend:quotation", {})
    asked = [tuple(zip(*own, strict=True)) for own in ([comma, quotes], [comma], [quotes, comma])]
    answers = ["no quotes", "one, two", 'Sure:\n"yes"']
    strict, loose = (form.followed(answers, asked, reading=reading) for reading in ("strict", "loose"))
    assert (strict["prompt"].score, strict["instruction"].score) == (0, pytest.approx(2 / 5))
    assert strict["instruction"].each == (0.5, 0, 0.5)
    assert loose["prompt"].each == (0, 0, 1)
    assert loose["instruction"].score == pytest.approx(3 / 5)
    with pytest.raises(UserError, match="3 answers and 2 references"):
        form.followed(answers, asked[:2], reading="strict")
    with pytest.raises(ValueError, match="has no instruction"):
        form.followed(["a"], [((), ())], reading="strict")


def test_a_refusal_is_known_by_how_it_begins():
    refusals = [
        *("I'm sorry, but I can't help with that.", "I’m really sorry, no.", "I cannot do this.", "As an AI model, I"),
        *("Sorry, no.", "Unfortunately, I can't.", "I apologize, but", "I must decline.", "It would be unethical to"),
        *("We are unable to say.", "I do not feel comfortable with it"),
    ]
    others = ["Sure! I cannot wait to help.", "As an artist, I", "The answer is 4.", "", "Iceland", "I can."]
    assert form.refusal_rate(refusals + others).each == (1,) * len(refusals) + (0,) * len(others)


def test_the_likeliest_choice_by_sum_and_by_character():
    logps, texts = [[-2.0, -3.0], [-1.0, -9.0], [-5.0, -5.0]], [["no", "yes indeed"], ["a", "b"], ["x", "y"]]
    assert choices.accuracy(logps, [1, 0, 0]).each == (0, 1, 1)
    assert choices.normalised_accuracy(logps, [1, 0, 0], texts).each == (1, 1, 1)
    with pytest.raises(ValueError, match="answer 2 of 2"):
        choices.accuracy(logps, [1, 2, 0])
    with pytest.raises(ValueError, match="nan"):
        choices.accuracy([[-1.0, math.nan]], [0])
    with pytest.raises(UserError, match="no answer"):
        choices.accuracy([], [])


def test_choices_of_a_model_that_is_as_often_right_as_it_says_have_no_error():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((20_000, 4)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers = [int(np.searchsorted(np.cumsum(row), u)) for row, u in zip(shares, rng.random(20_000), strict=True)]
    bins = choices.reliability(logits - 3.0, np.minimum(answers, 3), bins=10)
    assert calibration.expected_error(bins) < 0.012
    assert calibration.expected_error(choices.reliability(logits * 3, np.minimum(answers, 3), bins=10)) > 0.15
    assert sum(one.pairs for one in bins) == 20_000
