"""Runs on preferences as a user starts them: killed and resumed to the bit, from end to end, and used afterwards."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from ftjax import config as configs
from tests import bases, processes

pytestmark = pytest.mark.e2e
ROOT = bases.ROOT
KINDS = {
    "dpo": ("dpo", {}),
    "dpo, cached": ("dpo", {"reference__cache": "true"}),
    "dpo, a copy that moves": ("dpo", {"reference__kind": "start", "reference__sync_every": 3}),
    "kto": ("kto", {}),
    "reward": ("reward", {"adapter__dropout": 0.1}),
}


@pytest.fixture(scope="session")
def of_pairs(tiny_base, tiny_pairs, tiny_rows):
    """Returns a function: kind, folder and changes -> the words behind scripts/train.py of a small run of 12 steps."""

    def make(kind, workdir, **changes):
        small = {
            "steps": 12,
            "data.paths": f"({tiny_pairs},)",
            "data.max_length": 64,
            "optimizer.learning_rate": 1e-2,
            "eval.path": "",
            "eval.check": "",
            "eval.every": 4,
            "eval.max_new_tokens": 8,
            "checkpoint.every": 3,
            "log.writers": "(console,jsonl)",
        } | {name.replace("__", "."): value for name, value in changes.items()}
        if kind == "dpo":
            small |= {"retention.path": tiny_rows, "eval.kl_prompts": 2}
        overrides = [f"--config.{name}={value}" for name, value in small.items()]
        return ["--config", f"configs/smoke/{kind}.py:model={tiny_base}", "--workdir", str(workdir), *overrides]

    return make


@pytest.fixture(scope="session")
def whole_of(tmp_path_factory, of_pairs):
    """Returns a function: one of KINDS -> the folder of a run that nobody disturbed."""
    known = {}

    def make(name):
        if name not in known:
            kind, changes = KINDS[name]
            folder = tmp_path_factory.mktemp("runs") / "whole"
            words = of_pairs(kind, folder, **changes)
            process = processes.Process(["scripts/train.py", *words], tmp_path_factory.mktemp("said"))
            assert process.ends() == 0, process.said()
            known[name] = folder
        return known[name]

    return make


@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_is_killed_and_told_to_stop_is_to_the_bit_the_run_that_nobody_touched(
    name, start, of_pairs, whole_of, tmp_path
):
    whole, run, (kind, changes) = whole_of(name), tmp_path / "run", KINDS[name]
    process = start("train", *of_pairs(kind, run, **changes))
    assert process.until(lambda: list((run / "checkpoints").glob("*.tmp")))
    process.kill()
    process = start("train", "--workdir", run, "--resume")
    known = processes.lines(run)
    assert process.until(lambda: processes.lines(run) > known)
    process.send(signal.SIGINT)
    assert process.ends() == 0, process.said()
    assert not (run / "DONE").exists()
    process = start("train", "--workdir", run, "--resume")
    assert process.until(lambda: list(run.glob("adapter.tmp-*")))
    process.kill()
    process = start("train", "--workdir", run, "--resume")
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, whole)
    losses = [row["loss"] for row in processes.metrics(run) if "loss" in row]
    assert len(losses) == 12
    if "cached" in name:
        assert "the reference's log-probabilities are known" in process.said()[0]
    if kind == "reward":
        for file in ("adapter/score.json", "reward.json"):
            assert (run / file).read_bytes() == (whole / file).read_bytes()


def test_a_cached_reference_gives_the_curve_of_one_that_runs_in_every_step(whole_of):
    """From the first step to the last, on what is trained and what is held out."""
    curves = [
        [row[name] for row in processes.metrics(whole_of(kind)) for name in ("loss", "eval_loss") if name in row]
        for kind in ("dpo", "dpo, cached")
    ]
    np.testing.assert_allclose(*curves, atol=1e-5)
    assert len(curves[0]) == 15


def test_a_run_that_goes_on_from_an_adapter_is_resumed_to_the_bit(start, of_pairs, whole, tmp_path):
    """The adapter of an SFT run; what comes of it begins at log 2."""
    go_on = {"adapter__path": whole / "adapter", "reference__kind": "start"}
    process = start("train", *of_pairs("dpo", tmp_path / "whole", **go_on))
    assert process.ends() == 0, process.said()
    before = json.loads((tmp_path / "whole" / "before.json").read_text())["metrics"]
    assert before["eval_loss"] == pytest.approx(np.log(2), abs=1e-6)
    run = tmp_path / "run"
    process = start("train", *of_pairs("dpo", run, **go_on))
    assert process.until(lambda: (run / "checkpoints" / "6").exists())
    process.kill()
    process = start("train", "--workdir", run, "--resume")
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, tmp_path / "whole")


@pytest.mark.parametrize("argument", ["dpo", "dpo.py:loss=orpo", "kto", "reward"])
def test_a_smoke_config_runs_from_end_to_end(argument, start, tmp_path):
    name, _, arguments = argument.partition(".py:")
    process = start("train", "--config", f"configs/smoke/{name}.py:{arguments}", "--workdir", tmp_path / "run")
    assert process.ends() == 0, process.said()
    assert (tmp_path / "run" / "DONE").exists()
    assert (tmp_path / "run" / "adapter" / "README.md").exists()
    assert list((tmp_path / "run" / "plots").glob("*.png"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["reward_model"] == (name == "reward")
    wanted = {"dpo": ("eval_reward", "eval_retention_perplexity", "eval_loss"), "kto": ("eval_reward", "eval_loss")}
    for number in wanted.get(name, ("eval_accuracy", "eval_loss")):
        assert np.isfinite(summary["after"][number]), number
    rows = processes.rows(tmp_path / "run" / "held_out.jsonl")
    assert len(rows) == 8
    assert set(rows[0]["before"]) == set(rows[0]["after"]) >= {"loss"}
    assert (tmp_path / "run" / "retention.jsonl").exists() == (name != "reward")


def run_script(name, *words):
    return subprocess.run(
        [sys.executable, f"scripts/{name}.py", *map(str, words)],
        cwd=ROOT,
        env=processes.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dpo_run_is_evaluated_on_chats_and_answers(whole_of, tiny_rows, tmp_path):
    run = whole_of("dpo")
    spec = f"configs/eval/held_out.py:run={run}"
    done = run_script("evaluate", "--config", f"{spec},data={tiny_rows}", "--workdir", tmp_path / "eval")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert found["rows"] == 60
    assert found["metrics"]["eval_perplexity"] > 1
    done = run_script("evaluate", "--config", spec, "--workdir", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: config.data.path is empty, as a run on preferences has no held-out text of its"
    )
    assert not (tmp_path / "none").exists()
    done = run_script("generate", "--run", run, "--prompt", "Say red.", "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr


def test_a_reward_model_is_refused_by_name_where_text_is_wanted(whole_of, tiny_rows, tiny_pairs, tiny_base, tmp_path):
    run = whole_of("reward")
    says = (
        f"error: {run}/adapter is a reward model, which does not write; score completions with python scripts/score.py"
    )
    for name, words in {
        "evaluate": ("--config", f"configs/eval/held_out.py:run={run},data={tiny_rows}", "--workdir", tmp_path / "e"),
        "generate": ("--run", run, "--prompt", "Say red."),
    }.items():
        done = run_script(name, *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith(says)
    done = run_script("generate", "--model", tiny_base, "--adapter", run / "adapter", "--prompt", "Say red.")
    assert done.returncode == 2
    assert done.stderr.startswith(says)
    done = run_script(
        "train", "--config", f"configs/dpo/jsonl.py:data={tiny_pairs},model={tiny_base},adapter={run}/adapter"
    )
    assert done.returncode == 2
    assert "is a reward model, whose adapter and head belong together" in done.stderr


SWEEP = """
from configs.smoke import dpo

def get_config(arg=""):
    return dpo.get_config(arg)

def get_sweep(arg=""):
    return [{"loss.beta": 0.1}, {"loss.beta": 0.5}]
"""


def test_a_sweep_over_losses_of_pairs_has_their_numbers(of_pairs, tiny_base, tmp_path):
    (tmp_path / "some.py").write_text(SWEEP)
    words = [word for word in of_pairs("dpo", "", steps=2) if word.startswith("--config.")]
    done = run_script(
        "sweep", "--config", f"{tmp_path}/some.py:model={tiny_base}", *words, "--workdir", tmp_path / "sweep", "--here",
        "--metric", "after.eval_rewards/margins",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "sweep" / "table.json").read_text())
    assert len(rows) == 2
    assert (tmp_path / "sweep" / "plot.png").exists()
    assert "0.5" in done.stdout


def test_every_default_of_runs_on_preferences_is_read(tiny_base, tiny_pairs, tiny_rows, tmp_path, monkeypatch):
    from ftjax import experiment, run
    from ftjax.runs import folder as folders

    for kind in ("dpo", "kto", "reward"):
        asked = set()
        with monkeypatch.context() as patch:
            patch.setattr(experiment, "plain", lambda config, asked=asked: bases.Recorder(config.to_dict(), asked))
            kept = {} if kind == "reward" else {"retention__path": str(tiny_rows)}
            config = bases.preferences(kind, tiny_base, tiny_pairs, steps=2, optimizer__warmup_steps=1, **kept)
            built = experiment.build(config)
            folder = folders.create(
                tmp_path / kind, name=kind, config=built.config, command=["python"], resume=False, may_change=()
            )
            run.train(built, folder, lambda _: None)
            folder.release()
        # Those of other losses; tests/unit/test_objective.py builds with them.
        elsewhere = {f"loss.{name}" for name in ("alpha", "tau", "gamma", "cpo_alpha")} if kind == "dpo" else set()
        assert set(configs.flatten(config)) - asked == elsewhere
