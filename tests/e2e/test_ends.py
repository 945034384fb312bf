"""How a run ends: with its best checkpoint, by patience, by a loss that is not finite, and what is made of it then."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from ftjax.checkpoint import hf_import, peft
from ftjax.data import versions
from tests import bases, processes

pytestmark = pytest.mark.e2e
ROOT = bases.ROOT


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_a_loss_that_is_not_finite_stops_the_run_with_one_line_and_keeps_the_last_good_state(start, words, tmp_path):
    run = tmp_path / "run"
    absurd = {"optimizer__learning_rate": 1e38, "optimizer__warmup_steps": 0}
    process = start("train", *words(run, **absurd))
    assert process.ends() == 2, process.said()
    (line,) = process.said()[1].splitlines()
    assert line.startswith("error: step 2: the loss or its gradient is not finite (loss nan; the median of")
    assert f"the batch is in {run}/bad_batch_1.npz" in line
    assert "lower optimizer.learning_rate" in line
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["1"]
    with np.load(run / "bad_batch_1.npz") as batch:
        assert batch["tokens"].shape == (4, 64)
    assert "Traceback" in (run / "FAILED").read_text()
    assert "UserError: step 2" in (run / "FAILED").read_text()
    assert not (run / "DONE").exists()
    assert [row["step"] for row in processes.metrics(run)] == [1]
    process = start("train", "--workdir", run, "--resume", "--debug")
    assert process.ends() == 2
    assert "Traceback" in process.said()[1]
    assert (run / "FAILED.1").exists(), "what went wrong the first time is kept"


@pytest.fixture(scope="module")
def opposed(tmp_path_factory, tiny_base):
    """What overfits: after some steps, answers to train on make the answers that are measured less likely."""
    folder, made = tmp_path_factory.mktemp("opposed"), {}
    for name, word in {"data": "red", "eval": "boat"}.items():
        found = bases.rows(24)
        for row in found:
            row["messages"][1]["content"] = " ".join([word] * 12)
        made[name] = bases.write_rows(folder / f"{name}.jsonl", found)
    argument = f"data={made['data']},eval={made['eval']},model={tiny_base},steps=20"
    return {
        "argument": argument,
        "optimizer__learning_rate": 0.1,
        "eval__every": 2,
        "eval__samples": 0,
        "checkpoint__every": 0,
    }


def losses(run):
    return {row["step"]: row["eval_loss"] for row in processes.metrics(run) if "eval_loss" in row}


def test_the_best_checkpoint_becomes_the_adapter_when_asked_and_the_last_one_otherwise(start, words, tmp_path, opposed):
    used = {}
    for use in ("best", "last"):
        run = tmp_path / use
        process = start("train", *words(run, **opposed, checkpoint__use=use))
        assert process.ends() == 0, process.said()
        summary = read(run, "summary.json")
        used[use] = summary["checkpoint"]
        assert summary["after"]["eval_loss"] == losses(run)[used[use]]
    found = losses(tmp_path / "best")
    assert found == losses(tmp_path / "last")
    assert used == {"best": min(found, key=found.get), "last": 20}
    assert used["best"] < 20
    assert (tmp_path / "best" / "checkpoints" / str(used["best"])).is_dir()
    adapters = [(tmp_path / use / "adapter" / "adapter_model.safetensors").read_bytes() for use in ("best", "last")]
    assert adapters[0] != adapters[1]


def test_patience_ends_a_run_that_gets_no_better(start, words, tmp_path, opposed):
    run = tmp_path / "run"
    process = start("train", *words(run, **opposed, stop__patience=3, checkpoint__use="best"))
    assert process.ends() == 0, process.said()
    summary, found = read(run, "summary.json"), losses(run)
    best = min(found, key=found.get)
    assert (summary["reason"], summary["step"], summary["checkpoint"]) == ("patience", best + 6, best)
    assert max(found) == best + 6 < 20
    assert f"stopped at step {best + 6}: stop.patience evaluations in a row were no better" in process.said()[0]
    assert (run / "DONE").exists()


def test_a_run_repeats_to_the_bit_from_its_folder(start, whole, tmp_path):
    again = tmp_path / "again"
    process = start("train", "--config", f"configs/from_run.py:{whole}", "--workdir", again)
    assert process.ends() == 0, process.said()
    processes.assert_same_run(again, whole)
    assert read(again, "config.json") == read(whole, "config.json")


def test_a_fully_fine_tuned_model_is_exported_and_measured_as_it_is(start, words, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    process = start("train", *words(run, config="sft/full", optimizer__learning_rate=1e-2))
    assert process.ends() == 0, process.said()
    summary = read(run, "summary.json")
    assert summary["trainable_share"] == 1.0
    assert summary["after"]["eval_loss"] < 0.5 * summary["before"]["eval_loss"]
    process = start("export", "--run", run, "--format", "peft", "--out", out)
    assert process.ends() == 2
    assert process.said()[1] == f"error: {run} trained all weights, so there is no adapter; use --format merged\n"
    process = start("export", "--run", run, "--format", "merged", "--out", out)
    assert process.ends() == 0, process.said()
    config, exported = hf_import.load(out)
    _, trained = hf_import.load(run / "model")
    np.testing.assert_array_equal(bases.logits_of(config, exported, None), bases.logits_of(config, trained, None))
    for name in ("generation_config.json", "chat_template.jinja"):
        assert (run / "model" / name).read_text() == (out / name).read_text()
    spec = f"configs/eval/held_out.py:run={run}"
    process = start("evaluate", "--config", spec, "--workdir", tmp_path / "eval")
    assert process.ends() == 0, process.said()
    assert read(tmp_path / "eval", "evaluation.json")["metrics"] == summary["after"]


def test_a_lora_run_is_measured_exported_and_merged_without_a_difference(start, whole, tmp_path, tiny_base):
    spec = f"configs/eval/held_out.py:run={whole}"
    process = start("evaluate", "--config", spec, "--workdir", tmp_path / "eval")
    assert process.ends() == 0, process.said()
    assert read(tmp_path / "eval", "evaluation.json")["metrics"] == read(whole, "summary.json")["after"]
    for kind in ("peft", "merged"):
        process = start("export", "--run", whole, "--format", kind, "--out", tmp_path / kind)
        assert process.ends() == 0, process.said()
    config, base = hf_import.load(tiny_base)
    adapted = bases.logits_of(config, base, peft.load(tmp_path / "peft", base, config))
    merged = bases.logits_of(config, hf_import.load(tmp_path / "merged")[1], None)
    np.testing.assert_allclose(merged, adapted, rtol=0, atol=1e-5)
    process = start("generate", "--model", tmp_path / "merged", "--prompt", "Say red.", "--max-new-tokens", 8)
    assert process.ends() == 0, process.said()
    once = process.said()[0]
    process = start("generate", "--run", whole, "--prompt", "Say red.", "--max-new-tokens", 8)
    assert process.ends() == 0, process.said()
    assert process.said()[0] == once


def test_two_runs_at_once_do_not_meet_and_one_folder_belongs_to_one_process(start, words, whole, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = start("train", *words(one)), start("train", *words(two))
    assert first.until(lambda: (one / "config.json").exists())
    third = start("train", *words(one))
    assert third.ends() == 2
    assert third.said()[1] == f"error: {one} holds a run already; continue it with --resume or give another --workdir\n"
    assert (first.ends(), second.ends()) == (0, 0), (first.said(), second.said())
    processes.assert_same_run(one, whole)
    processes.assert_same_run(two, whole)


def test_a_folder_in_use_is_not_resumed_by_a_second_process(start, words, tmp_path):
    run = tmp_path / "run"
    first = start("train", *words(run))
    assert first.until(lambda: (run / "config.json").exists())
    first.popen.send_signal(signal.SIGSTOP)
    second = start("train", "--workdir", run, "--resume")
    assert second.ends() == 2
    says = f"error: {run} is in use by process {first.popen.pid}; wait for it, or give another --workdir\n"
    assert second.said()[1] == says


def test_a_closed_pipe_does_not_end_a_run(words, tmp_path, whole):
    run = tmp_path / "run"
    command = [sys.executable, "scripts/train.py", *words(run)]
    train = subprocess.Popen(
        command, cwd=ROOT, env=processes.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    train.stdout.readline()
    train.stdout.close()
    with train:
        err = train.stderr.read().decode()
    assert (train.returncode, err) == (0, "")
    processes.assert_same_run(run, whole)


def test_a_run_says_which_version_it_trains_on_and_that_a_file_has_changed_since(start, words, tmp_path, tiny_base):
    data = str(bases.write_rows(tmp_path / "rows.jsonl", bases.rows(24)))
    process = start("data", "log", data, "--save", "as collected")
    assert process.ends() == 0, process.said()
    first = versions.now(data)
    bases.write_rows(tmp_path / "rows.jsonl", bases.rows(20))
    process = start("train", *words(tmp_path / "run", argument=f"data={data},model={tiny_base},steps=2"))
    assert process.ends() == 0, process.said()
    said = process.said()[0]
    assert f"{data}: version {versions.now(data)[:12]}, 20 rows" in said
    assert f"{data} has changed since its version {first[:12]}" in said
    (file,) = read(tmp_path / "run", "data.json")["files"]
    assert (file["saved"], file["changed"]["note"]) == (None, "as collected")
