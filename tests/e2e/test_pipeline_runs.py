"""A pipeline as a user starts it: stopped in a stage, gone on with, done, and done again in no time."""

import json
import signal

import pytest

pytestmark = pytest.mark.e2e
STAGES = ("sft", "pairs", "reward", "dpo_0", "ppo_0", "grpo_0", "compare")


def test_a_pipeline_stopped_in_a_stage_goes_on_and_what_is_done_is_not_done_again(start, tmp_path):
    words = ("train", "--config", "configs/ppo/pipeline.py:debug", "--workdir", tmp_path / "runs")
    folder = lambda name: next(iter((tmp_path / "runs").glob(f"{name}-*")), None)
    first = start(*words)
    begun = lambda: folder("reward") is not None and (folder("reward") / "config.json").exists()
    assert first.until(begun, seconds=300)
    first.send(signal.SIGTERM)
    first.ends()
    sft = (folder("sft") / "DONE").stat().st_mtime_ns
    second = start(*words)
    assert second.ends() == 0, second.said()
    assert (folder("sft") / "DONE").stat().st_mtime_ns == sft
    assert all((folder(name) / "DONE").exists() for name in STAGES)
    pairs = [json.loads(line) for line in (folder("pairs") / "pairs.jsonl").read_text().splitlines()]
    assert all(row["reward_chosen"] - row["reward_rejected"] >= 0.5 for row in pairs)
    found = json.loads((folder("compare") / "comparison.json").read_text())
    assert [one["method"] for one in found["methods"]] == ["start", "best of 4", "dpo", "ppo", "grpo"]
    assert found["methods"][0]["kl"] == pytest.approx(0, abs=1e-4)
    assert (folder("compare") / "comparison.png").stat().st_size > 5000
    assert len((folder("compare") / "comparison.md").read_text().splitlines()) == 11
    third = start(*words)
    assert third.ends(seconds=60) == 0, third.said()
    assert third.said()[0].count("unchanged") == len(STAGES)
