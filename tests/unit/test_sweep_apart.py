"""Runs of a sweep in processes of their own: so many at once, a failure named, a signal passed on, all resumable."""

import functools
import os
import signal
import textwrap
import threading
import time

import pytest

from ftjax import sweep

RUN = textwrap.dedent(
    """
    import os, pathlib, signal, sys, time
    path, log = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1]), pathlib.Path(sys.argv[0]).with_name("log")
    def note(word):
        with log.open("a") as file:
            file.write(f"{word} {path.name}\\n")
    def saved(*_):
        note("saved")
        sys.exit(0)
    signal.signal(signal.SIGINT, saved)
    path.mkdir(exist_ok=True)
    for name in ("config.json", "code.json"):
        (path / name).write_text("{}")
    note("resumed" if "--resume" in sys.argv else "started")
    if path.name == "fails":
        sys.exit("error: the loss is not finite")
    if path.name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60 if path.name.startswith("long") and "--resume" not in sys.argv else 0.3)
    (path / "DONE").write_text("now")
    note("done")
    """
)


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """Returns a function: names of runs -> what `Apart` yields of them; the runs are small programs, and keep a log."""
    program = tmp_path / "run.py"
    program.write_text(RUN)
    words = sweep.words
    monkeypatch.setattr(sweep, "words", lambda *given: [str(program), *words(*given)[1:]])

    def run(names, at_once, say=lambda _: None):
        jobs = [sweep.Job(name, name, "some.py", {}, tmp_path / name) for name in names]
        return [(job.name, error) for job, error in sweep.Apart(at_once)(jobs, say)]

    run.log = lambda: (tmp_path / "log").read_text().splitlines()
    return run


def test_as_many_run_at_once_as_are_asked_for(swept):
    assert {name for name, error in swept("abcd", 2) if error is None} == set("abcd")
    level, most = 0, 0
    for line in swept.log():
        level += 1 if line.startswith("started") else -1
        most = max(most, level)
    assert most == 2


def test_a_run_that_fails_or_is_killed_is_named_and_the_others_go_on(swept):
    found = dict(swept(["fails", "dies", "a"], 2))
    assert str(found["fails"]).startswith("the loss is not finite (exit status 1; ")
    assert str(found["dies"]).startswith("it was killed (exit status -9; ")
    assert found["a"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_has_every_run_save_and_starts_no_other_and_the_next_call_resumes(swept, number):
    def send():
        while sum(line.startswith("started") for line in swept.log()) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Timer(0.5, send).start()
    found = swept(["long1", "long2", "never"], 2)
    assert found in ([("long1", None), ("long2", None)], [("long2", None), ("long1", None)])
    assert sorted(swept.log()) == ["saved long1", "saved long2", "started long1", "started long2"]
    swept(["long1", "long2", "never"], 2)
    assert {"resumed long1", "resumed long2", "started never", "done never"} <= set(swept.log())


def test_runs_that_share_a_gpu_share_its_memory(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in sweep.Apart(1)._environment()
    assert sweep.Apart(3)._environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.30"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
    assert sweep.Apart(3)._environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.2"


def test_in_this_process_nothing_follows_a_run_that_was_stopped(tmp_path):
    jobs = [sweep.Job(name, name, "some.py", {}, tmp_path / name) for name in "ab"]
    calls = []
    found = list(functools.partial(sweep.here, launch=lambda job: calls.append(job.name))(jobs, lambda _: None))
    assert (calls, found) == (["a"], [(jobs[0], None)])
