"""`data.py curve` trains at growing sizes, says what it found, and trains nothing twice."""

import json

import pytest

pytestmark = pytest.mark.e2e


def test_a_curve_of_a_config_makes_runs_an_answer_and_a_picture(start, tiny_base, tiny_rows, tmp_path):
    small = ("data.max_length=64", "data.batch_size=4", "eval.batch_size=4", "eval.samples=0", "checkpoint.every=0")
    changes = [f"--config.{one}" for one in (*small, "log.writers=jsonl", "eval.every=0")]
    config = f"configs/sft/jsonl.py:data={tiny_rows},model={tiny_base},steps=2"
    words = ["curve", "--config", config, *changes, "--seeds", 2, "--here", "--workdir", tmp_path / "c", "--sizes"]
    first = start("data", *words, "10,20")
    assert first.ends() == 0, first.said()
    assert "undecided: 2 sizes and 4 runs are too few for a curve" in first.said()[0]
    second = start("data", *words, "10,20,40")
    assert second.ends() == 0, second.said()
    assert second.said()[0].count("is done") == 4
    told = json.loads((tmp_path / "c" / "curve.json").read_text())
    assert [run["status"] for run in told["runs"]] == ["done"] * 6
    assert told["answer"] in second.said()[0]
    assert (tmp_path / "c" / "curve.png").exists()
    assert len(list((tmp_path / "c").glob("rows=*+seed=*/DONE"))) == 6
