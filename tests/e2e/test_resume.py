"""A run may be killed at any moment, or told to stop, and goes on as if nothing had happened."""

import json
import random
import re
import resource
import shutil
import signal
import time

import pytest
from safetensors import numpy as safetensors_numpy

from ftjax.data import used
from tests import bases, processes


def resume(folder):
    return ("train", "--workdir", folder, "--resume")


def as_an_older_ftjax_left_it(run):
    """Takes out of a run folder what it says of versions and rows."""
    (run / used.ROWS).unlink()
    known = json.loads((run / used.FACTS).read_text())
    (run / used.FACTS).write_text(json.dumps({name: known[name] for name in ("paths", "hash", "report")}))


@pytest.mark.e2e
def test_a_run_that_is_killed_again_and_again_is_to_the_bit_the_run_that_nobody_touched(start, words, whole, tmp_path):
    """Killed before its first checkpoint and in a save, asked to stop, and killed while it writes the adapter."""
    run = tmp_path / "run"
    checkpoints = run / "checkpoints"
    process = start("train", *words(run))
    assert process.until(lambda: processes.lines(run) > 0)
    process.kill()
    assert not list(checkpoints.glob("[0-9]")), "the first kill came late"

    process = start(*resume(run))
    assert process.until(lambda: list(checkpoints.glob("*.tmp")))
    process.kill()
    assert list(checkpoints.glob("*.tmp")), "the second kill did not fall into a save"

    process = start(*resume(run))
    known = processes.lines(run)
    assert process.until(lambda: processes.lines(run) > known)
    process.send(signal.SIGTERM)
    assert process.ends() == 0, process.said()
    assert not (run / "DONE").exists()

    process = start(*resume(run))
    assert process.until(lambda: list(run.glob("adapter.tmp-*")))
    process.kill()
    assert not (run / "DONE").exists()

    as_an_older_ftjax_left_it(run)
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, whole)
    assert not list(run.rglob("*tmp*")), "what a killed process left is swept away"
    for name in (used.FACTS, used.ROWS):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert len(json.loads((run / "resumes.json").read_text())) == 4


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_with_0_and_the_run_goes_on_to_the_bit(start, words, whole, tmp_path, number):
    run = tmp_path / "run"
    process = start("train", *words(run))
    assert process.until(lambda: processes.lines(run) > 1)
    process.send(number)
    assert process.ends() == 0, process.said()
    out, err = process.said()
    assert f"{number.name}: saving after this step; once more ends at once" in err
    assert f"python scripts/train.py --workdir {run} --resume" in out
    assert not (run / "DONE").exists()
    assert not (run / "FAILED").exists()
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, whole)


@pytest.mark.e2e
def test_a_signal_on_an_evaluation_changes_nothing_not_even_which_checkpoint_is_best(start, words, tmp_path):
    """Every step is an evaluation here, and a checkpoint where it is the best so far."""
    every = {"eval__every": 1, "checkpoint__every": 0, "checkpoint__use": "best"}
    process = start("train", *words(tmp_path / "whole", **every))
    assert process.ends() == 0, process.said()
    run = tmp_path / "run"
    process = start("train", *words(run, **every))
    for count in (3, 9, 17):
        assert process.until(lambda count=count: processes.lines(run) >= count)
        process.send(signal.SIGTERM)
        assert process.ends() == 0, process.said()
        process = start(*resume(run))
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, tmp_path / "whole")


@pytest.mark.e2e
def test_the_second_signal_ends_at_once_and_what_was_saved_is_whole(start, words, tmp_path):
    run = tmp_path / "run"
    slow = ["--config.eval.samples=40", "--config.eval.generate_batch=1", "--config.eval.every=4"]
    process = start("train", *words(run, eval__holdout=0.5, eval__max_new_tokens=60), *slow)
    assert process.until(
        lambda: any("eval_loss" in row for row in processes.metrics(run)) if processes.lines(run) else False
    )
    process.send(signal.SIGINT)
    assert process.until(lambda: "once more ends at once" in process.said()[1])
    process.send(signal.SIGINT)
    assert process.ends(5) == 128 + signal.SIGINT
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    untouched = tmp_path / "untouched"
    process = start("train", *words(untouched, eval__holdout=0.5, eval__max_new_tokens=60), *slow)
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, untouched)


@pytest.mark.e2e
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_moments_change_nothing(start, words, whole, tmp_path, seed):
    run, chance = tmp_path / "run", random.Random(seed)
    process = start("train", *words(run))
    for _ in range(4):
        process.until(lambda: (run / "config.json").exists())
        goal = processes.lines(run) + chance.randint(0, 4)
        process.until(lambda goal=goal: processes.lines(run) >= goal)
        time.sleep(chance.random() * 0.2)
        process.kill()
        process = start(*resume(run)) if (run / "config.json").exists() else start("train", *words(run))
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, whole)


@pytest.mark.e2e
def test_full_fine_tuning_survives_kills_also_while_the_model_is_written(start, words, tmp_path):
    full = {"config": "sft/full", "optimizer__learning_rate": 1e-3}
    process = start("train", *words(tmp_path / "whole", **full))
    assert process.ends() == 0, process.said()
    run = tmp_path / "run"
    process = start("train", *words(run, **full))
    assert process.until(lambda: list((run / "checkpoints").glob("*.tmp")))
    process.kill()
    for moment in ("model.tmp-*", "model/README.md"):  # in the middle, and when it is there but DONE is not
        process = start(*resume(run))
        assert process.until(lambda moment=moment: list(run.glob(moment)))
        process.kill()
        assert not (run / "DONE").exists()
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, tmp_path / "whole", result="model/model.safetensors")


@pytest.mark.e2e
def test_a_run_that_patience_stopped_stays_stopped_when_it_is_resumed(start, words, tmp_path):
    run = tmp_path / "run"
    process = start("train", *words(run, optimizer__learning_rate=1e-12, eval__every=2, stop__patience=2))
    assert process.until(lambda: list(run.glob("adapter.tmp-*")))
    process.kill()
    before = processes.metrics(run)
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    assert processes.metrics(run) == before
    assert json.loads((run / "summary.json").read_text())["step"] == 6
    assert "stopped at step 6: stop.patience evaluations in a row were no better" in process.said()[0]


@pytest.mark.e2e
def test_a_finished_run_resumed_is_finished_again_and_goes_on_with_more_steps(start, words, whole, tmp_path):
    run = tmp_path / "run"
    process = start("train", *words(run))
    assert process.ends() == 0, process.said()
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, whole)
    process = start(*resume(run), "--config.steps=14")
    assert process.ends() == 0, process.said()
    assert [row["step"] for row in processes.metrics(run) if "loss" in row] == [*range(1, 15)]


@pytest.mark.e2e
def test_a_full_disk_while_saving_is_one_line_and_the_run_goes_on_when_there_is_room(start, words, whole, tmp_path):
    """No file may grow beyond 20 kB once the first checkpoint is there; the moments of the adapter are larger."""
    run = tmp_path / "run"
    process = start("train", *words(run))
    assert process.until(lambda: (run / "checkpoints" / "3").exists())
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    assert process.ends() == 2, process.said()
    err = process.said()[1]
    assert len(err.splitlines()) == 1, err
    assert re.search(r"checkpoints/\d+: no space left on the disk; nothing was written, free some and repeat", err)
    assert "Traceback" in (run / "FAILED").read_text()
    assert (run / "checkpoints" / "3").exists()
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, whole)


@pytest.mark.e2e
def test_other_data_or_another_base_is_refused_on_resume(start, words, tmp_path, tiny_rows, tiny_base):
    data, base, run = tmp_path / "rows.jsonl", tmp_path / "base", tmp_path / "run"
    shutil.copyfile(tiny_rows, data)
    shutil.copytree(tiny_base, base)
    process = start("train", *words(run, argument=f"data={data},model={base},steps=12"))
    assert process.until(lambda: list((run / "checkpoints").glob("[0-9]")))
    process.kill()
    data.write_text(tiny_rows.read_text().replace("red!", "blue!"))
    process = start(*resume(run))
    assert process.ends() == 2
    assert process.said()[1].startswith("error: the data has content hash ")
    shutil.copyfile(tiny_rows, data)
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    process = start(*resume(run))
    assert process.ends() == 2
    assert process.said()[1].startswith(f"error: {base} has content hash ")


@pytest.mark.e2e
def test_ctrl_c_before_the_first_step_is_one_line_and_the_run_can_be_resumed(start, words, whole, tmp_path):
    for attempt in range(3):  # a busy machine may see the file so late that training has begun: then it ends with 0
        run = tmp_path / f"run{attempt}"
        process = start("train", *words(run))
        assert process.until(lambda run=run: (run / "tokenizer.json").exists())  # the base is measured next
        process.send(signal.SIGINT)
        if (code := process.ends()) != 0:
            break
    assert code == 128 + signal.SIGINT
    assert process.said()[1] == "interrupted\n"
    assert "KeyboardInterrupt" in (run / "FAILED").read_text()
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    processes.assert_same_run(run, whole)


@pytest.mark.e2e
def test_a_base_whose_perplexity_is_infinite_can_be_trained_and_resumed(start, words, tmp_path, tiny_rows):
    """Strict JSON has no infinity: in before.json and summary.json it is the text "Infinity"."""
    base, run = bases.write_base(tmp_path / "loud"), tmp_path / "run"
    tensors = safetensors_numpy.load_file(base / "model.safetensors")
    tensors["model.norm.weight"] *= 300
    safetensors_numpy.save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    process = start("train", *words(run, argument=f"data={tiny_rows},model={base},steps=6"))
    assert process.until(lambda: (run / "checkpoints" / "3").exists())
    process.send(signal.SIGTERM)
    assert process.ends() == 0, process.said()
    assert json.loads((run / "before.json").read_text())["metrics"]["eval_word_perplexity"] == "Infinity"
    process = start(*resume(run))
    assert process.ends() == 0, process.said()
    assert "inf" in process.said()[0]
    assert (run / "DONE").exists()
