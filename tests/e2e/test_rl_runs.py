"""Runs on own samples as a user starts them: killed and resumed to the bit, stopped by what went wrong, going on."""

import json
import os
import signal

import pytest

from tests import bases, processes

pytestmark = pytest.mark.e2e
ROOT = bases.ROOT
# A reward of a user's own. It says when a step has drawn and not learned yet, and waits there if it is told to.
REWARD = """
import os, pathlib, time

def vowels(*, completions, **rest):
    mark = os.environ.get("MARK")
    if mark:
        with open(mark, "a") as stream:
            stream.write("x")
        calls = len(pathlib.Path(mark).read_text())
        if calls >= int(os.environ.get("FAIL", "1000")):
            raise ValueError("the judge is not at home")
        time.sleep(float(os.environ.get("WAIT", "0")))
    return [sum(text.count(letter) for letter in "aeiou") / (1 + len(text)) for text in completions]
"""
KINDS = {
    "ppo": (
        "ppo",
        {
            "updates.epochs": 2, "updates.minibatches": 2, "rollout.sync_every": 3, "loss.importance_cap": 2.0,
            "loss.normalise_scores": "true", "loss.kl_controller": "code", "loss.kl_horizon": 50.0,
            "reference.kind": "start", "rewards.missing_end": "penalty",
        },
    ),
    "grpo": ("grpo", {"rollout.samples": 4}),
}  # fmt: skip


@pytest.fixture(scope="session")
def of_prompts(tiny_base, tiny_pairs, tmp_path_factory):
    """Returns a function: one of KINDS, folder, changes -> the words behind scripts/train.py, and what they need."""
    module = tmp_path_factory.mktemp("rewards")
    (module / "letters.py").write_text(REWARD)
    needs = {"PYTHONPATH": os.pathsep.join((str(module), str(ROOT)))}

    def make(name, workdir, **changes):
        kind, own = KINDS[name]
        small = {
            "steps": 8, "data.paths": f"({tiny_pairs},)", "data.max_length": 64, "data.batch_size": 4,
            "rewards.check": "", "rewards.names": "(letters:vowels,)", "optimizer.learning_rate": 1e-2, "eval.path": "",
            "eval.check": "", "eval.kl_prompts": 2, "eval.every": 4, "eval.max_new_tokens": 8,
            "checkpoint.every": 3, "log.writers": "(console,jsonl)", "log.samples": 2,
        } | own | {name.replace("__", "."): value for name, value in changes.items()}  # fmt: skip
        overrides = [f"--config.{key}={value}" for key, value in small.items()]
        words = ["--config", f"configs/smoke/{kind}.py:model={tiny_base}", "--workdir", str(workdir), *overrides]
        return words, needs

    return make


@pytest.fixture(scope="session")
def undisturbed(of_prompts, tmp_path_factory):
    """Returns a function: one of KINDS -> the folder of a run that nobody disturbed."""
    known = {}

    def make(name):
        if name not in known:
            words, needs = of_prompts(name, tmp_path_factory.mktemp("runs") / name)
            process = processes.Process(["scripts/train.py", *words], tmp_path_factory.mktemp("said"), **needs)
            assert process.ends() == 0, process.said()
            known[name] = words[words.index("--workdir") + 1]
        return bases.Path(known[name])

    return make


def resume(folder):
    return ("train", "--workdir", folder, "--resume")


def assert_same(name, one, other):
    processes.assert_same_run(one, other)
    if name == "ppo":
        value = "value/adapter_model.safetensors"
        assert (one / value).read_bytes() == (other / value).read_bytes()


@pytest.mark.parametrize("name", KINDS)
def test_a_run_killed_between_rollout_and_update_and_after_a_checkpoint_is_to_the_bit_the_undisturbed_one(
    start, of_prompts, undisturbed, tmp_path, name
):
    run, mark = tmp_path / "run", tmp_path / "mark"
    words, needs = of_prompts(name, run)
    calls = lambda: len(mark.read_text()) if mark.exists() else 0
    waiting = needs | {"MARK": str(mark), "WAIT": "0.4"}
    process = start("train", *words, **waiting)
    assert process.until(lambda: calls() == 2, 300)  # before the first checkpoint, in the second step
    process.kill()
    assert not list((run / "checkpoints").glob("[0-9]"))
    process = start(*resume(run), **waiting)
    assert process.until(lambda: calls() == 2 + 5, 300)  # in the fifth step: that of 3 is saved
    process.kill()
    assert [path.name for path in (run / "checkpoints").glob("[0-9]")] == ["3"]
    process = start(*resume(run), **needs)
    assert process.until(lambda: (run / "checkpoints" / "6").exists(), 300)
    process.kill()
    process = start(*resume(run), **needs)
    assert process.ends() == 0, process.said()
    assert_same(name, run, undisturbed(name))


@pytest.mark.parametrize("name", KINDS)
def test_ctrl_c_saves_after_the_step_and_the_run_goes_on_to_the_bit(start, of_prompts, undisturbed, tmp_path, name):
    run = tmp_path / "run"
    words, needs = of_prompts(name, run)
    process = start("train", *words, **needs)
    assert process.until(lambda: processes.lines(run) > 1, 300)
    process.send(signal.SIGINT)
    assert process.ends() == 0, process.said()
    assert "SIGINT: saving after this step; once more ends at once" in process.said()[1]
    assert not (run / "DONE").exists()
    process = start(*resume(run), **needs)
    assert process.ends() == 0, process.said()
    assert_same(name, run, undisturbed(name))


def test_a_policy_that_leaves_its_reference_ends_the_run_with_the_state_before_it_and_may_go_on(
    start, of_prompts, tmp_path
):
    run = tmp_path / "run"
    words, needs = of_prompts("ppo", run, stop__kl=0.02, reference__kind="base", optimizer__learning_rate=0.05)
    process = start("train", *words, **needs)
    assert process.ends() == 2, process.said()
    err = process.said()[1].strip().splitlines()
    assert "nats a completion, above config.stop.kl 0.02" in err[-1]
    assert "Traceback" in (run / "FAILED").read_text()
    reached = len([row for row in processes.metrics(run) if "loss" in row])
    assert 0 < reached < 8
    assert (run / "checkpoints" / str(reached)).is_dir()
    assert all(row["objective/kl"] <= 0.02 for row in processes.metrics(run) if "loss" in row)
    process = start(*resume(run), "--config.stop.kl=0", **needs)
    assert process.ends() == 0, process.said()
    assert (run / "DONE").exists()
    assert not (run / "FAILED").exists()


def test_a_reward_that_breaks_ends_the_run_in_one_line_and_it_goes_on_to_the_bit_when_it_is_mended(
    start, of_prompts, undisturbed, tmp_path
):
    run, mark = tmp_path / "run", tmp_path / "mark"
    words, needs = of_prompts("grpo", run)
    process = start("train", *words, **needs, MARK=str(mark), FAIL="5")
    assert process.ends() == 2, process.said()
    last = process.said()[1].strip().splitlines()[-1]
    assert last.startswith("error: the reward 'letters:vowels' (letters:vowels) fails for all 16 rows")
    assert "the judge is not at home" in last
    assert (run / "checkpoints" / "4").is_dir(), "the fifth step had no scores"
    process = start(*resume(run), **needs)
    assert process.ends() == 0, process.said()
    assert_same("grpo", run, undisturbed("grpo"))


@pytest.mark.parametrize(
    "config", ["ppo", "ppo.py:shared", "grpo", "grpo.py:algorithm=raft", "grpo.py:algorithm=online_dpo"]
)
def test_smoke_configs_run_from_end_to_end(start, tmp_path, config):
    """On the embedded base: alarms are silent, tables and results are there."""
    name, _, argument = config.partition(".py")
    run = tmp_path / "run"
    process = start("train", "--config", f"configs/smoke/{name}.py{argument}", "--workdir", run)
    assert process.ends() == 0, process.said()
    assert "warning: in step" not in process.said()[1]
    summary = json.loads((run / "summary.json").read_text())
    assert {"eval_reward", "eval_sampled_kl", "eval_retention_loss"} <= summary["after"].keys()
    rows = {name: processes.rows(run / f"{name}.jsonl") for name in ("held_out", "retention")}
    assert [len(found) for found in rows.values()] == [8, 8]
    assert all({"score", "answer"} <= row[end].keys() for row in rows["held_out"] for end in ("before", "after"))
    assert summary["change"]["held_out"]["score"]["of"] <= 8
    assert (run / "adapter" / "adapter_model.safetensors").exists()
    assert (run / "value").exists() == (name == "ppo")
    steps = [row for row in processes.metrics(run) if "loss" in row]
    assert len(steps) == 4
    assert {"objective/scores", "completions/mean_length"} <= steps[0].keys()
    if name == "ppo":
        assert all(row["policy/approxkl_first"] < 1e-6 for row in steps)
