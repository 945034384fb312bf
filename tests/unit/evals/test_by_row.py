"""Sums by row over packed batches are those of each row alone."""

import numpy as np
import pytest

from ftjax.data import batch as arrays
from ftjax.data import encode, loader
from ftjax.evals import by_row, perplexity, tasks


def examples(count):
    rng = np.random.default_rng(0)
    made = []
    for n in range(count):
        length = int(rng.integers(2, 30))
        mask = np.concatenate([[0], rng.integers(0, 2, length - 1)]).astype(np.uint8)
        mask[-1] = 1
        made.append(encode.Example(np.full(length, n + 1, np.int32), mask, f"f:{n}"))
    return made


def run(batch):
    """A loss that is the token itself; one without weight is not a number, as a model's may be."""
    values = np.where(batch.weights != 0, batch.tokens * batch.weights, 0.0)
    return (values.sum(), batch.weights.sum(), {}), {"loss": (values, batch.weights), "other": (values, batch.weights)}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_tokens_are_added_up_by_the_row_that_they_belong_to(batch_size):
    found = examples(40)
    form = {"layout": "packed", "batch_size": batch_size, "length": 64}
    shard = loader.Shard(0, 1)
    batches = loader.eval_batches(found, collator=arrays.EXAMPLES, buckets=(), shard=shard, **form)
    sizes = [len(one.ids) for one in found]
    places = by_row.Places(loader.eval_places(sizes, **form), np.array(sizes))
    assert any(len(rows) > 2 for batch in places.batches for rows in batch), "or nothing is packed"
    numbers, sums = by_row.evaluate(run, batches, perplexity.Units(0, 0), places)
    rows = by_row.of_tokens(sums)
    assert [row["tokens"] for row in rows] == [int(one.mask.sum()) for one in found]
    assert [row["nats"] for row in rows] == [(n + 1) * int(one.mask.sum()) for n, one in enumerate(found)]
    total = sum(row["nats"] for row in rows) / sum(row["tokens"] for row in rows)
    assert numbers["eval_loss"] == pytest.approx(total, rel=1e-12)
    assert set(sums) == {"loss"}


def test_pairs_and_labels_have_means_and_a_row_with_both_kinds_a_margin():
    two = lambda *pairs: np.array(pairs, np.float64).T
    pairs = by_row.of_elements(
        {"loss": two((0.5, 1), (0.2, 1)), "rewards/accuracies": two((1, 1), (0, 1)), "margin": two((3, 1), (-1, 1))},
        labels=False,
    )
    assert pairs == [
        {"loss": 0.5, "accuracy": 1.0, "margin": 3.0},
        {"loss": 0.2, "accuracy": 0.0, "margin": -1.0},
    ]
    labels = by_row.of_elements(
        {
            "loss": two((1, 2), (0.25, 1)),
            "rewards/chosen": two((4, 1), (0.5, 1)),
            "rewards/rejected": two((1, 1), (0, 0)),
        },
        labels=True,
    )
    assert labels == [
        {"loss": 0.5, "weight": 2, "margin": 3.0, "accuracy": 1.0},
        {"loss": 0.25, "weight": 1},
    ]


def test_answers_stand_at_the_rows_that_were_asked_and_only_marked_ones_have_a_score():
    item = tasks.Item([1], {}, "p", "r")
    rows = [{}, {}, {}]
    given = [tasks.Answer(item, "one two", 0.5), tasks.Answer(item, "one", float("nan"))]
    by_row.add_answers(rows, given, [2, 0], lambda text: len(text.split()))
    assert rows == [
        {"answer": "one", "answer_tokens": 1},
        {},
        {"score": 0.5, "answer": "one two", "answer_tokens": 2},
    ]
