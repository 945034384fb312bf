"""Every reward of rl/scores/, the day its file appears. A column or hyper-parameter that is new needs a value here."""

import pickle
import time

import numpy as np
import pytest

from ftjax import config
from ftjax.rl import calls, rewards
from ftjax.rl.rewards import Sample, Scorer

HYPER = {
    **{"pattern": r"\d+\s*$", "schema_path": "", "json_credit": 0.25, "length_target": 20, "length_cap": 1000},
    **{"reading": "loose", "credit": "share"},
}
COLUMNS = {
    "answer": ["72", 72, "#### 72", "Zürich"],
    "reference": ["seventy-two"] * 4,
    "schema": [{"type": "integer"}, '{"minimum": 5}', {"required": ["a"]}, True],
    "instruction_id_list": [
        ["punctuation:no_comma"],
        ["keywords:existence", "startend:quotation"],
        ["change_case:english_lowercase"],
        ["length_constraints:number_sentences"],
    ],
    "kwargs": [
        [{}],
        [{"keywords": ["72"]}, {}],
        [{"language": None}],
        [{"relation": "at least", "num_sentences": 2}],
    ],
}
TEXTS = [
    *("", " ", "\n\n\n", "72", "The answer is 72.", '```json\n{"a": 72}\n```', "so, it is\n#### 72", '"72"'),
    *("Zürich", "答案是72", "٧٢", "🙂🙂 72", "\x00\x01", "\ud800", "﷽" * 30, "NaN", "-", "$", "####", "1" * 5000),
    *("[" * 100_000, "a, b. " * 16_667, "9" * 100_000, "*\n" * 50_000, '{"a": ' * 16_000, "?!" * 50_000 + "x"),
]
each_score = pytest.mark.parametrize("name", rewards.names())


def of(name):
    return rewards.terms([name], (), HYPER)[0]


def samples(name, texts, shift=0):
    """A completion a text, with a line of the data; numeric's lines have a number."""
    rows = 3 if name == "numeric" else 4
    wanted = calls.takes(of(name).function)
    columns = {key: values for key, values in COLUMNS.items() if wanted.wants(key)}
    return [
        Sample("a prompt", text, True, len(text), {key: values[(at + shift) % rows] for key, values in columns.items()})
        for at, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def score():
    """Returns a function from a reward's name and samples to its scores; the processes are shared."""
    made = {}

    def run(name, given):
        if name not in made:
            made[name] = Scorer([of(name)], timeout=20.0, workers=1)
            if len(made) > 1:
                made[name]._pool = next(iter(made.values()))._pool
        return made[name](given)

    yield run
    for scorer in made.values():
        scorer.close()


@each_score
def test_a_reward_takes_what_it_is_given_by_name(name):
    function = of(name).function
    assert set(config.hyper_parameters(calls.inner(function))) <= set(HYPER)
    assert calls.takes(function).needed <= {*COLUMNS, *calls.OF_SAMPLES}
    assert not calls.takes(function).everything
    pickle.loads(pickle.dumps(function))


@each_score
def test_no_text_makes_a_reward_fail_or_takes_it_long(name, score):
    for shift in range(4):
        given = samples(name, TEXTS, shift)
        start = time.monotonic()
        found = score(name, given)
        assert time.monotonic() - start < 20
        assert found.failures == []
        assert found.valid.all()
        assert (found.scores >= 0).all()
        assert (found.scores <= 1).all()


@each_score
def test_a_score_is_of_its_row_alone(name, score):
    given = samples(name, TEXTS[:16])
    order = np.random.default_rng(0).permutation(len(given))
    found = score(name, given).scores
    np.testing.assert_array_equal(score(name, [given[at] for at in order]).scores, found[order])
    np.testing.assert_array_equal([score(name, [one]).scores[0] for one in given], found)


@each_score
def test_a_reward_tells_completions_apart(name, score):
    assert len({one for shift in range(4) for one in score(name, samples(name, TEXTS[:16], shift)).scores}) > 1


@each_score
def test_a_row_without_the_columns_that_a_reward_needs_has_no_score(name, score):
    function = of(name).function
    columns = (calls.takes(function).needed | set(getattr(calls.inner(function), "one_of", ()))) & set(COLUMNS)
    found = score(name, [one._replace(row={}) for one in samples(name, ["72", "x"])])
    assert found.failures == []
    np.testing.assert_array_equal(found.valid, [not columns] * 2)
