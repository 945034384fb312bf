"""The two ends of a run on the same rows: what its folder says of each of them, and of what changed."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import before_after, experiment, run
from ftjax import config as configs
from ftjax.data import versions
from ftjax.errors import UserError
from ftjax.runs import folder as folders
from tests import bases

ENDS = ("before", "after")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("name", "prefix"), [("held_out", "eval_"), ("retention", "eval_retention_")])
def test_the_numbers_of_the_summary_are_sums_over_the_rows(finished, name, prefix):
    rows, summary = lines(finished.folder / f"{name}.jsonl"), finished.summary
    assert len(rows) == {"held_out": summary["rows"], "retention": summary["retention_rows"]}[name]
    for end in ENDS:
        loss = sum(row[end]["nats"] for row in rows) / sum(row[end]["tokens"] for row in rows)
        assert loss == pytest.approx(summary[end][f"{prefix}loss"], rel=1e-5)
    assert summary["before"][f"{prefix}loss"] != summary["after"][f"{prefix}loss"]
    score = np.mean([row["after"]["score"] for row in rows]) if name == "held_out" else None
    assert score == (summary["after"]["eval_score"] if name == "held_out" else None)
    change = summary["change"][name]["loss"]
    assert change["value"] == pytest.approx(
        summary["after"][f"{prefix}loss"] - summary["before"][f"{prefix}loss"], rel=1e-4
    )


def test_rows_are_known_by_the_hash_of_their_source_and_have_prompt_reference_and_answers(finished, tiny_rows):
    source = {versions.row_hash(row)[:16]: row["messages"] for row in lines(tiny_rows)}
    rows = lines(finished.folder / "held_out.jsonl")
    assert len({row["id"] for row in rows}) == 3
    for row in rows:
        asked, answer = source[row["id"]]
        assert (row["prompt"], row["reference"]) == (asked["content"], answer["content"])
    given = lines(finished.folder / "answers.jsonl")
    for end in ENDS:
        assert [row[end]["answer"] for row in rows] == [row[end] for row in given]
        assert all(row[end].keys() == {"nats", "tokens", "score", "answer", "answer_tokens"} for row in rows)
    assert [row["id"] for row in lines(finished.folder / "retention.jsonl")] == list(source)


def test_the_card_says_what_changed(finished):
    text = (finished.folder / "adapter" / "README.md").read_text()
    assert "## What training changed" in text
    assert "| held-out: loss |" in text
    assert "| retention: loss |" in text
    assert "retention: loss: " in text
    assert "| eval_retention_loss |" in text
    assert "| 60 |" in text


@pytest.fixture
def again(finished, tmp_path):
    """Returns a function: edits before.json of a copy of the finished run, and goes on with it -> its summary."""

    def make(edit, **changes):
        path = tmp_path / "run"
        shutil.copytree(finished.folder, path)
        for name in ("held_out.jsonl", "retention.jsonl"):
            (path / name).unlink()
        known = json.loads((path / "before.json").read_text())
        edit(known)
        (path / "before.json").write_text(json.dumps(known))
        built = experiment.build(configs.override(configs.from_run(path), changes))
        said = []
        folder = folders.create(path, name="run", config=built.config, command=["x"], resume=True, may_change=())
        with folder.owned():
            summary = run.train(built, folder, said.append)
        return path, summary, said

    return make


def test_a_finished_run_that_is_resumed_writes_the_same_rows_to_the_bit(finished, again):
    """before.json holds its keys in another order than memory."""
    path, summary, _ = again(lambda _: None)
    for name in ("held_out.jsonl", "retention.jsonl"):
        assert (path / name).read_bytes() == (finished.folder / name).read_bytes()
    assert summary["change"] == finished.summary["change"]
    assert (path / "DONE").exists()


def test_a_run_of_an_older_ftjax_comes_to_its_end_and_says_what_it_does_not_know(again):
    def older(known):
        del known["rows"]
        known["metrics"] = {name: x for name, x in known["metrics"].items() if "retention" not in name}

    path, summary, said = again(older)
    assert (path / "DONE").exists()
    assert summary["change"] == {}
    assert summary["flipped"] == []
    assert not (path / "held_out.jsonl").exists()
    assert summary["before"].keys() == summary["after"].keys()
    assert "an older ftjax began this run" in "\n".join(said)


def test_a_retention_set_that_is_another_than_at_the_start_is_refused(again):
    def other(known):
        known["rows"]["retention"][0]["id"] = "f" * 16

    with pytest.raises(UserError, match=r"before.json was measured on other rows of .*rows.jsonl; put back the file"):
        again(other)


def measured(config):
    """Returns an experiment and what it does on both sets with adapters that are no longer those of the start."""
    built = experiment.build(config)
    moved = lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    with run.on_mesh(built):
        parts = run.start(built, lambda _: None)
        state = parts.state.replace(trainable=jax.tree.map(moved, parts.state.trainable))
        return built, run.measure(parts, state, before_after.sets(built))


OF = {
    "dpo": {"loss", "accuracy", "margin"},
    "kto": {"loss", "weight", "accuracy", "margin"},
    "reward": {"loss", "accuracy", "margin"},
}


@pytest.mark.parametrize("kind", OF)
def test_the_rows_of_preferences_are_the_same_packed_and_alone_and_their_means_those_of_the_set(
    kind, tiny_base, tiny_pairs, tiny_rows
):
    small = {"eval__holdout": 0.25, "eval__batch_size": 8, "eval__samples": 0, "data__max_length": 64}
    small |= {} if kind == "reward" else {"retention__path": str(tiny_rows), "retention__rows": 5}
    packed, of_packed = measured(bases.preferences(kind, tiny_base, tiny_pairs, data__row_length=192, **small))
    alone, of_alone = measured(
        bases.preferences(kind, tiny_base, tiny_pairs, data__layout="padded", data__buckets=(96,), **small)
    )
    assert packed.held_out.rows == alone.held_out.rows == 10
    assert any(len(rows) > 1 for batch in packed.held_out.places.batches for rows in batch)
    one, other = of_packed["held_out"], of_alone["held_out"]
    for row, same in zip(one.rows, other.rows, strict=True):
        assert row.keys() == same.keys() == OF[kind]
        kept = set(row) - {"loss"} if kind == "kto" else set(row)  # whose reference point is of the batch
        assert {name: row[name] for name in kept} == pytest.approx({name: same[name] for name in kept}, abs=1e-4)
    assert len({round(row["margin"], 3) for row in one.rows}) == 10, "or equal rows hide a wrong place"
    weights = [row.get("weight", 1) for row in one.rows]
    mean = np.average([row["loss"] for row in one.rows], weights=weights)
    assert mean == pytest.approx(one.numbers["eval_loss"], rel=1e-5)
    if kind != "reward":
        rows = of_packed["retention"].rows
        loss = sum(row["nats"] for row in rows) / sum(row["tokens"] for row in rows)
        assert loss == pytest.approx(of_packed["retention"].numbers["eval_retention_loss"], rel=1e-5)
        assert len(rows) == 5


def test_without_a_retention_set_a_run_says_in_one_line_how_to_have_one(tiny_base, tiny_rows):
    config = configs.load(f"{bases.ROOT}/configs/sft/jsonl.py:data={tiny_rows},model={tiny_base}")
    built = experiment.build(configs.override(config, bases.SMALL))
    assert built.retention is None
    assert built.derived["retention"].startswith("not measured; name chats or texts that the model must not forget: --")
    assert "\n" not in built.derived["retention"]
    assert list(before_after.sets(built)) == ["held_out"]
