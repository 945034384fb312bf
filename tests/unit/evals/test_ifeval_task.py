"""The local IFEval marks responses as the harness's own metrics do, which are imported here without their downloads."""

import gzip
import json
import sys
import types

import pytest

from ftjax.evals import local_tasks

pytest.importorskip("lm_eval")
nltk = pytest.importorskip("nltk")
# Their rules for these two read Punkt's model, a download; tests/golden/ifeval.jsonl has texts of both.
NEED_PUNKT = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
RANDOM = {"letter": "#"}  # they draw another letter in its place


@pytest.fixture
def theirs(monkeypatch):
    """The harness's function that marks a response; langdetect guesses with the seed that ours has."""
    import langdetect

    frozen = types.ModuleType("immutabledict")
    frozen.immutabledict = dict
    monkeypatch.setitem(sys.modules, "immutabledict", frozen)
    monkeypatch.setattr(nltk.data, "find", lambda *_: "")
    monkeypatch.setattr(langdetect.DetectorFactory, "seed", 0)
    from lm_eval.tasks.ifeval import utils

    return utils.process_results


@pytest.fixture(scope="module")
def rows(shared_data):
    with gzip.open(shared_data / "ifeval" / "input_data_shared.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    letters = lambda row: any(given.get("letter") == RANDOM["letter"] for given in row["kwargs"])
    return [row for row in found if not NEED_PUNKT & {*row["instruction_id_list"]} and not letters(row)]


def responses(prompt):
    """Texts that keep some of the instructions of a prompt and break others."""
    return (
        prompt,
        prompt.lower().replace(",", ""),
        f'Sure:\n"<<A title>> * {prompt}"\nBye',
        json.dumps({"a": prompt[:40]}),
        f"{prompt}\n***\nP.S. my answer is yes.\n\n* a\n* b\n\n*one* and *two*",
        " \n",
    )


@pytest.mark.filterwarnings("ignore")  # of the harness and of what it imports
def test_responses_are_marked_as_the_harness_marks_them(rows, theirs):
    assert len(rows) > 250
    strict = []
    for row in rows[::10]:
        for text in responses(row["prompt"]):
            ours = local_tasks.ifeval_kept(row, [text])
            assert ours == theirs(row, [text]), (row["key"], text)
            strict += ours["inst_level_strict_acc"]
    assert 0.1 < sum(strict) / len(strict) < 0.9
