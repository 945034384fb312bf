"""Files of preferences become what an objective learns from, or one line names the file, the line and the way out."""

import numpy as np
import pytest

from ftjax import experiment
from ftjax.errors import UserError
from tests import bases


@pytest.fixture
def build(tiny_base, tmp_path):
    """Returns a function: kind of config, rows and changes -> the experiment on a file of these rows."""

    def make(kind, rows, **changes):
        path = bases.write_rows(tmp_path / "data.jsonl", rows)
        return experiment.build(bases.preferences(kind, tiny_base, path, **changes))

    return make


@pytest.fixture
def refused(build, tmp_path):
    """Returns a function: the same -> the line that says what is wrong, from the name of the file on."""

    def message(kind, rows, **changes):
        with pytest.raises(UserError) as caught:
            build(kind, rows, **changes)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return message


def changed(number, rows=None, **cells):
    """Pairs of which row `number`, from 1, has other cells."""
    rows = rows or bases.pairs(12)
    rows[number - 1] = rows[number - 1] | cells
    return rows


def labelled(count=12, label=lambda n: bool(n % 2)):
    return [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": label(n)}
        for n, row in enumerate(bases.pairs(count))
    ]


RANKED = [
    {"prompt": r["prompt"], "completions": [r["chosen"], r["rejected"], "no"], "ranks": [1, 2, 3]}
    for r in bases.pairs(12)
]
SCORED = [{"prompt": r["prompt"], "completion": r["chosen"], "score": n - 3.5} for n, r in enumerate(bases.pairs(12))]
MIXED = [*bases.pairs(3), *labelled(9)]


@pytest.mark.parametrize(
    ("kind", "rows", "changes", "says"),
    [
        (
            "dpo",
            MIXED,
            {},
            "one completion with a label, but this objective learns from pairs; give chosen and rejected, or train "
            "with KTO, which learns from labels (configs/smoke/kto.py)",
        ),
        ("reward", MIXED, {}, "rejected, or take config.loss.name=pointwise, which learns from labels"),
        (
            "kto",
            RANKED,
            {},
            "a completion without a label, which is what this objective learns from; give one, or train with DPO, "
            "which learns from pairs (configs/smoke/dpo.py)",
        ),
        ("reward", RANKED, {"loss.name": "pointwise", "loss.centring": 0.0}, "or take config.loss.name=bradley_terry"),
        ("kto", SCORED, {}, "is no label; give labels, or scores between 0 and 1"),
        ("dpo", bases.rows(12), {}, "data.jsonl:1: no 'chosen' and 'rejected' (nor 'completions' with 'ranks' or"),
        ("dpo", changed(3, chosen=""), {}, "data.jsonl:3: empty completion: 'chosen' holds no text; fill it or remove"),
        (
            "dpo",
            [{"promt": r["prompt"], "choosen": r["chosen"], "rejected": r["rejected"]} for r in bases.pairs(4)],
            {},
            "data.jsonl:1: no column 'chosen' (did you mean 'choosen'?); columns found: 'promt', 'choosen', 'rejected'",
        ),
        (
            "dpo",
            changed(2, chosen="red boat", rejected="red  boat "),
            {"data.equal": "error"},
            "data.jsonl:2: completions 1 and 2 are equal but for white space ('redboat'); no one can be better",
        ),
        (
            "dpo",
            changed(5, chosen="red " * 80),
            {"data.truncation": "error"},
            "but max_length is 64; raise it, or set truncation to 'drop' or 'truncate'",
        ),
        ("dpo", bases.pairs(12), {"data.max_length": 6}, "none of 12 rows is left (0 with equal completions, "),
        (
            "dpo",
            changed(5, chosen="red " * 160),
            {"data.max_length": 400},
            "data.jsonl:5: a row of ",
        ),
        (
            "dpo",
            bases.pairs(12),
            {"data.row_length": 12},
            "tokens, but a row of a batch holds 12; make the row longer, or max_length smaller",
        ),
        ("dpo", bases.pairs(1), {}, "data.jsonl has 1 rows, too few to hold some out; give config.eval.path"),
        ("kto", bases.pairs(1), {}, "data.jsonl:1: no other row has another prompt and completions that fit behind"),
        ("dpo", bases.pairs(12), {"data.prefix": "share"}, "config.data.prefix is 'share'. Did you mean 'shared'?"),
        ("dpo", bases.pairs(12), {"data.equal": "dropp"}, "config.data.equal is 'dropp'. Did you mean 'drop'?"),
        ("dpo", bases.pairs(12), {"data.paths": ()}, "config.data.paths is empty; name a file:"),
        ("dpo", bases.pairs(12), {"data.weights": (1.0, 2.0)}, "mixture weights [1.0, 2.0] must be 1 positive numbers"),
        ("dpo", bases.pairs(12), {"eval.max_new_tokens": 200}, "config.eval.max_new_tokens 200 exceed the context"),
        (
            "dpo",
            bases.pairs(12),
            {"eval.check": "ftjax.assets.world:reward"},
            "config.eval.check 'ftjax.assets.world:reward' cannot score this row",
        ),
        ("dpo", bases.pairs(12), {"retention.path": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
    ],
)  # fmt: skip
def test_data_that_an_objective_cannot_learn_from_is_refused(refused, kind, rows, changes, says):
    assert says in refused(kind, rows, **changes)


def test_pairs_are_taken_apart_for_kto_and_rankings_stay_together_for_dpo(build):
    kto = build("kto", bases.pairs(12)).data
    assert all(row.labels == (1.0, 0.0) and len(row.mismatched) == 2 for row in kto.train[0])
    ranked = build("dpo", RANKED).data
    assert all(row.pairs == ((0, 1), (0, 2), (1, 2)) for row in ranked.train[0])
    batch = build("dpo", RANKED).loader.batch(0)
    prompts = (batch.pair_weights.sum(axis=1)).round(5)
    np.testing.assert_allclose(prompts, prompts.round(), atol=1e-5)


def test_a_row_of_many_short_completions_may_be_longer_than_the_context(build):
    many = [
        {
            "prompt": row["prompt"],
            "completions": [f"{n} {row['chosen']}" for n in range(24)],
            "ranks": list(range(1, 25)),
        }
        for row in bases.pairs(6)
    ]
    assert build("dpo", many).data.length > 128


def test_a_mixture_takes_as_many_rows_as_the_weights_say(tiny_base, tmp_path):
    other = bases.write_rows(tmp_path / "other.jsonl", [row | {"rejected": "never"} for row in bases.pairs(40)])
    first = bases.write_rows(tmp_path / "first.jsonl", bases.pairs(40))
    config = bases.preferences(
        "dpo", tiny_base, first, data__paths=(str(first), str(other)), data__weights=(1.0, 3.0), data__layout="padded"
    )
    built = experiment.build(config)
    assert len(built.data.train) == 2
    never = {row.completions[1].tobytes() for row in built.data.train[1]}
    assert len(never) == 1
    places = built.loader.rows // built.loader.batch_size
    batches = [built.loader.batch(k) for k in range(places)]
    length = len(built.data.train[1][0].completions[1])
    found = [
        batch.tokens[b, batch.ends[b, 1] - length + 1 : batch.ends[b, 1] + 1].tobytes() in never
        for batch in batches
        for b in range(len(batch.tokens))
    ]
    assert abs(np.mean(found) - 0.75) < 0.05


def test_the_hash_of_the_data_tells_rows_orders_pairs_and_labels_apart(build):
    rows = bases.pairs(12)
    swapped = changed(2, chosen=rows[1]["rejected"], rejected=rows[1]["chosen"])
    files = [rows, rows[1:], [rows[1], rows[0], *rows[2:]], swapped, changed(4, margin=2.0)]
    hashes = [build("dpo", found).data.hash for found in files]
    assert len(set(hashes)) == len(hashes)
    assert hashes[0] == build("dpo", rows).data.hash
