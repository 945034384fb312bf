"""Every kind of question keeps what it promises; a new file is tested the day it appears, and wants a sample here."""

import json
import pkgutil

import pytest

from ftjax import errors, lookup
from ftjax.people import kinds, server
from ftjax.people import store as people_store

KINDS = sorted(entry.name for entry in pkgutil.iter_modules(kinds.__path__) if not entry.name.startswith("_"))
TEXTS = [["base", "At 8."], ["tuned", "It opens at 8."]]
AXES = [
    {"name": name, "asks": "Is it?", "steps": ["no", "hardly", "half", "nearly", "yes"]} for name in ("true", "brief")
]
ROW = {"prompt": "When does the bakery open?", "completion": "At 8."}
# setting, payload, answers that are taken (the first two differ), one that passes over the item
SAMPLES = {
    "review": (
        {"of_preferences": False},
        {"line": 1, "row": ROW},
        [
            {"decision": "accept"},
            {"decision": "edit", "comment": "shorter", "texts": {"/completion": "8."}},
            {"decision": "reject", "comment": "wrong"},
        ],
        {"decision": "skip"},
    ),
    "rating": (
        {"axes": AXES},
        {"prompt": "When does the bakery open?", "answers": TEXTS[:1], "line": 1},
        [
            {"scores": {"true": 5, "brief": 4}},
            {"scores": {"true": 1, "brief": 4}, "comment": "at 9"},
        ],
        {"scores": None, "comment": "I cannot know"},
    ),
    "preference": (
        {},
        {"prompt": [{"role": "user", "content": "When does the bakery open?"}], "answers": TEXTS, "line": 1},
        [{"choice": "1"}, {"choice": "2", "comment": "a sentence"}, {"choice": "tie"}, {"choice": "both_bad"}],
        {"choice": "skip"},
    ),
}
METRICS = {"nominal", "ordinal", "interval", "ratio"}


@pytest.fixture(params=KINDS)
def sample(request):
    """The module of a kind with its question, an item, answers and the one that passes."""
    name = request.param
    assert name in SAMPLES, f"add a sample of {name} to SAMPLES"
    setting, payload, answers, passing = SAMPLES[name]
    question = people_store.Question("q", name, setting)
    item = people_store.Item("1", "q", payload, "", 2)
    return lookup.module("ftjax.people.kinds", name), question, item, answers, passing


def test_an_answer_is_kept_as_json_and_what_is_shown_is_json_too(sample):
    kind, question, item, answers, passing = sample
    for answer in (*answers, passing):
        kept = kind.check(item, question, "Anna", answer)
        assert json.loads(json.dumps(kept, allow_nan=False)) == kept
        json.dumps(kind.shown(item, question, "Anna", kept), allow_nan=False)
    assert kind.shown(item, question, "Anna", None) == kind.shown(item, question, "Anna", None)


def test_passing_does_not_count_and_answering_does(sample):
    kind, question, item, answers, passing = sample
    assert all(kind.counts(kind.check(item, question, "Anna", answer)) for answer in answers)
    assert not kind.counts(kind.check(item, question, "Anna", passing))


def test_labels_are_those_that_have_a_metric(sample):
    kind, question, item, answers, _ = sample
    metrics = kind.metrics(question)
    assert set(metrics.values()) <= METRICS
    for answer in answers:
        labels = kind.labels(kind.check(item, question, "Anna", answer))
        assert labels
        assert labels.keys() <= metrics.keys()
        assert all(isinstance(label, (str, int, float)) for label in labels.values())


def test_an_answer_agrees_with_itself_and_not_with_another(sample):
    kind, question, item, answers, _ = sample
    kept = [kind.check(item, question, "Anna", answer) for answer in answers]
    assert all(kind.agree(one, one) for one in kept)
    assert not kind.agree(kept[0], kept[1])
    assert not kind.agree(kept[1], kept[0])


@pytest.mark.parametrize("bad", [{}, {"nonsense": 1}, {"decision": 5}, {"decision": ["accept"]}, {"decision": None}])
def test_an_answer_of_another_shape_is_refused_in_words(sample, bad):
    kind, question, item, _, _ = sample
    with pytest.raises(errors.UserError):
        kind.check(item, question, "Anna", bad)


def test_the_payload_is_left_as_it_is_and_has_a_line(sample):
    kind, question, item, answers, _ = sample
    before = json.dumps(item.payload)
    for answer in answers:
        kind.shown(item, question, "Anna", kind.check(item, question, "Anna", answer))
    assert isinstance(kind.line(item), str)
    assert json.dumps(item.payload) == before


def test_the_page_of_the_kind_is_there(sample):
    script = server.PAGES / f"{sample[1].kind}.js"
    text = script.read_text(encoding="utf-8")
    assert "export function show(" in text
    assert "export function told(" in text
