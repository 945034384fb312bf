"""Numbers arrive whole, once, and where they were sent, whatever happens to the process, the disk or the terminal."""

import errno
import io
import json
import os
import signal
import subprocess
import sys

import pytest
import rich.console

from ftjax import errors
from ftjax.runs import console, jsonl, tensorboard, writers


class Recorder:
    """Keeps what it is given."""

    def __init__(self, fail=False):
        self.got, self.fail = [], fail

    def write(self, step, numbers):
        self.got.append((step, dict(numbers)))

    def text(self, step, name, rows):
        self.got.append((step, name, list(rows)))

    def close(self, summary):
        self.got.append(dict(summary))
        if self.fail:
            raise OSError("broken")


def test_every_writer_gets_everything_in_order():
    one, two = Recorder(), Recorder()
    several = writers.Several([one, writers.Null(), two], process=0)
    several.write(1, {"loss": 2})
    several.write(1, {"eval_loss": 3.0})
    several.text(1, "samples", [{"prompt": "a"}])
    several.close({"loss": 1.0})
    assert (
        one.got
        == two.got
        == [(1, {"loss": 2.0}), (1, {"eval_loss": 3.0}), (1, "samples", [{"prompt": "a"}]), {"loss": 1.0}]
    )


def test_only_the_first_process_writes():
    one = Recorder()
    several = writers.Several([one], process=1)
    several.write(1, {"loss": 2.0})
    several.text(1, "samples", [])
    several.close({})
    assert one.got == []


def test_a_metric_is_written_once_a_step_at_rising_steps():
    several = writers.Several([], process=0)
    several.write(3, {"loss": 1.0})
    several.write(3, {"eval_loss": 1.0})
    for step in (3, 2):
        with pytest.raises(AssertionError, match="loss was written at step 3"):
            several.write(step, {"loss": 1.0})


def test_all_writers_are_closed_though_one_fails():
    one, two = Recorder(fail=True), Recorder()
    with pytest.raises(OSError, match="broken"):
        writers.Several([one, two], process=0).close({"a": 1})
    assert two.got == [{"a": 1}]


def test_a_block_that_fails_closes_its_writers_and_keeps_its_own_error():
    one = Recorder(fail=True)

    def run():
        with writers.Several([one], process=0) as several:
            several.write(1, {"loss": 1.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert one.got == [(1, {"loss": 1.0}), {}]


def test_a_block_that_ends_well_leaves_the_closing_with_the_summary_to_it():
    one = Recorder()
    with writers.Several([one], process=0) as several:
        pass
    several.close({"a": 1})
    several.close({"a": 2})
    assert one.got == [{"a": 1}]


def make(kinds, folder, **changes):
    fields = {"process": 0, "config": {}, "steps": 9, "start": 0, "position": None, "project": "p", "mode": "disabled"}
    return writers.make(kinds, folder, **(fields | changes))


def test_writers_are_made_by_name_and_a_wrong_name_is_refused(tmp_path):
    several = make(["jsonl", "tensorboard", "null"], tmp_path)
    several.write(1, {"loss": 1.5})
    several.close({})
    assert jsonl.read(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.5}]
    assert list((tmp_path / "tensorboard").iterdir())
    with pytest.raises(errors.UserError, match=r"no writer 'josnl'\. Did you mean 'jsonl'"):
        make(["josnl"], tmp_path)


def test_another_process_makes_no_file(tmp_path):
    make(["jsonl", "tensorboard", "wandb", "console"], tmp_path, process=1).write(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


# ---- metrics.jsonl


def test_a_line_is_strict_json_with_its_step(tmp_path):
    lines = jsonl.Jsonl(tmp_path)
    lines.write(7, {"loss": 0.1, "bad": float("nan"), "worse": float("-inf")})
    lines.close({})
    text = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert row == {"step": 7, "loss": 0.1, "bad": "NaN", "worse": "-Infinity"}
    read = jsonl.read(tmp_path / "metrics.jsonl")[0]
    assert read["bad"] != read["bad"]
    assert read["worse"] == float("-inf")


@pytest.mark.parametrize("torn", ["{", '{"step": 3, "loss": 0.1}', "x" * 200_000])
def test_a_torn_last_line_is_removed_when_the_file_is_opened_again(tmp_path, torn):
    lines = jsonl.Jsonl(tmp_path)
    for step in range(3):
        lines.write(step, {"loss": float(step)})
    lines.close({})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert len(jsonl.read(tmp_path / "metrics.jsonl")) == 3
    again = jsonl.Jsonl(tmp_path)
    assert again.position() == len(whole)
    again.write(3, {"loss": 3.0})
    assert [row["loss"] for row in jsonl.read(tmp_path / "metrics.jsonl")] == [0.0, 1.0, 2.0, 3.0]
    again.close({})


def test_a_file_of_one_torn_line_becomes_empty(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1')
    lines = jsonl.Jsonl(tmp_path)
    assert lines.position() == 0
    lines.close({})
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_resumed_run_repeats_its_lines_to_the_byte(tmp_path):
    lines = jsonl.Jsonl(tmp_path)
    positions = []
    for step in range(10):
        lines.write(step, {"loss": 1 / (step + 3)})
        positions.append(lines.position())
    lines.close({})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    again = make(["jsonl"], tmp_path, start=5, position=positions[4])
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[: positions[4]]
    for step in range(5, 10):
        again.write(step, {"loss": 1 / (step + 3)})
    again.close({})
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


@pytest.mark.parametrize("position", [None, 0])
def test_lines_before_a_checkpoint_of_a_time_without_jsonl_stay_when_it_comes_back(tmp_path, position):
    lines = jsonl.Jsonl(tmp_path)
    for step in range(1, 9):
        lines.write(step, {"loss": 1.0})
    lines.write(8, {"eval_loss": 1.0})
    lines.close({})
    again = make(["jsonl"], tmp_path, start=6, position=position)
    again.write(7, {"loss": 2.0})
    again.close({})
    found = [(row["step"], row["loss"]) for row in jsonl.read(tmp_path / "metrics.jsonl")]
    assert found == [*((step, 1.0) for step in range(1, 7)), (7, 2.0)]


def test_a_file_shorter_than_its_checkpoint_says_is_refused(tmp_path):
    lines = jsonl.Jsonl(tmp_path)
    lines.write(1, {"loss": 1.0})
    with pytest.raises(errors.UserError, match="but 1000 when the checkpoint was saved"):
        lines.truncate(1000)
    lines.close({})


def test_a_full_disk_leaves_whole_lines_only(tmp_path, monkeypatch):
    lines = jsonl.Jsonl(tmp_path)
    lines.write(1, {"loss": 1.0})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    original = os.pwrite
    calls = []

    def half(file, data, offset):
        calls.append(len(data))
        if len(calls) == 1:
            return original(file, data[:5], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(errors.UserError, match=r"disk full while writing .*metrics\.jsonl"):
        lines.write(2, {"loss": 1.0})
    assert len(calls) == 2
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    monkeypatch.undo()
    lines.write(2, {"loss": 1.0})  # there is room again
    assert len(jsonl.read(tmp_path / "metrics.jsonl")) == 2
    lines.close({})


KILLED = """
import os, signal, sys
from pathlib import Path
from ftjax.runs import jsonl
lines = jsonl.Jsonl(Path(sys.argv[1]))
for step in range(100):
    lines.write(step, {"loss": 1.0})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_no_line_that_was_written(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(jsonl.read(tmp_path / "metrics.jsonl")) == 100


def test_a_table_of_texts_is_one_file_that_a_repeated_step_replaces(tmp_path):
    lines = jsonl.Jsonl(tmp_path)
    for answer in ("first", "zweiter ü\nline"):
        lines.text(20, "samples", [{"prompt": "p", "answer": answer, "score": float("inf")}])
    lines.close({})
    (file,) = (tmp_path / "samples").iterdir()
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"step": 20, "prompt": "p", "answer": "zweiter ü\nline", "score": "Infinity"}


# ---- console

NUMBERS = {
    "loss": 1.23456,
    "learning_rate": 1e-4,
    "grad_norm": 0.5,
    "tokens_per_second": 12345.6,
    "memory_rss_bytes": 1.5e9,
}


def shown(terminal, act, *, total=100, start=0):
    file = io.StringIO()
    screen = rich.console.Console(file=file, force_terminal=terminal, width=140, highlight=False, color_system=None)
    writer = console.Console(total=total, start=start, console=screen)
    act(writer)
    writer.close({})
    return file.getvalue()


def test_a_plain_line_has_the_numbers_that_a_person_watches():
    text = shown(False, lambda writer: writer.write(1, NUMBERS))
    assert text == "step 1/100  loss 1.235  lr 1.00e-04  grad 0.5  12,346 tokens/s  1.50 GB\n"


def test_plain_lines_come_at_a_rate_that_can_be_read(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])

    def run(writer):
        for step in range(1, 10_001):
            now[0] += 0.1
            writer.write(step, NUMBERS)

    lines = shown(False, run, total=10_000).splitlines()
    assert 150 < len(lines) < 300  # 1000 s: one a second for 50 s, then every 2 %
    assert lines[0].startswith("step 1/10,000")
    assert lines[-1].startswith("step 10,000/10,000")
    assert "ETA 15:" in next(line for line in lines if line.startswith("step 51"))


def test_an_evaluation_is_always_shown():
    def run(writer):
        for step in range(1, 6):
            writer.write(step, NUMBERS)
            writer.write(step, {"eval_loss": 2.0, "eval_exact_match": step / 10})

    lines = shown(False, run).splitlines()
    assert [line for line in lines if "eval" in line][4] == "step 5  eval_loss 2  eval_exact_match 0.5"
    assert sum("eval" in line for line in lines) == 5


def test_a_terminal_gets_a_bar_with_steps_numbers_and_the_time_left():
    def run(writer):
        writer.write(50, NUMBERS)
        writer.say("a line above")

    text = shown(True, run)
    assert "step 50/100" in text
    assert "loss 1.235" in text
    assert "ETA" in text
    assert "a line above" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_texts_are_printed_as_they_are_without_markup(terminal):
    rows = [{"prompt": "[bold]x[/bold] [/nothing]", "answer": "two\nlines"}]
    text = shown(terminal, lambda writer: writer.text(5, "samples", rows))
    assert "[bold]x[/bold] [/nothing]" in text
    assert "samples, step 5" in text


PIPED = """
import sys
from ftjax.runs import console
writer = console.Console(total=99, start=0)
for step in range(99):
    writer.write(step, {"eval_loss": 1.0})
writer.close({})
sys.exit(7)
"""


def test_a_closed_pipe_does_not_end_the_run():
    run = subprocess.Popen([sys.executable, "-u", "-c", PIPED], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.close()
    assert (run.wait(), run.stderr.read()) == (7, b"")
    run.stderr.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90_061, "1d 01:01:01"), (-3, "0:00")],
)
def test_durations_read_like_a_clock(seconds, text):
    assert console.duration(seconds) == text


# ---- TensorBoard


def test_tensorboard_gets_scalars_and_texts(tmp_path):
    from tensorboardX.proto import event_pb2

    writer = tensorboard.TensorBoard(tmp_path, start=0)
    for step in range(3):
        writer.write(step, {"loss": step / 4})
    writer.text(2, "samples", [{"prompt": "a|b", "answer": "c\nd"}])
    writer.close({})
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = [(event.step, value) for event in events for value in event.summary.value]
    assert [(step, value.simple_value) for step, value in values if value.tag == "loss"] == [
        (0, 0),
        (1, 0.25),
        (2, 0.5),
    ]
    assert any(
        b"a\\|b | c<br>d" in value.tensor.string_val[0] for _, value in values if value.tag.startswith("samples")
    )


def test_a_missing_tensorboard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(errors.UserError, match=r"pip install 'ftjax\[tensorboard\]'"):
        tensorboard.TensorBoard(tmp_path, start=0)
