"""A run of two processes with two devices each is the run of one process with four, whatever it trains."""

import math
import signal
import socket

import pytest

from tests import processes

pytestmark = pytest.mark.e2e
DEVICES = {"JAX_NUM_CPU_DEVICES": "2"}
# Both layouts sum in other orders; these are differences of numbers that are nearly the same.
ROUNDING = ("sampling/", "policy/approxkl", "objective/kl", "val/ratio")


def flags(count, process, port):
    return ("--coordinator", f"127.0.0.1:{port}", "--processes", count, "--process", process)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def both(start):
    """Returns a function: words behind scripts/train.py -> two processes of the run."""

    def run(*words):
        port = free_port()
        return [start("train", *words, *flags(2, process, port), **DEVICES) for process in (0, 1)]

    return run


def assert_like(one, other):
    """Two runs have the same numbers, to rounding."""
    rows, others = processes.metrics(one), processes.metrics(other)
    assert [row.keys() for row in rows] == [row.keys() for row in others]
    assert len(rows) > 4
    for row, known in zip(rows, others, strict=True):
        for name, value in row.items():
            if not name.startswith(ROUNDING):
                assert math.isclose(value, known[name], rel_tol=2e-4, abs_tol=1e-6), (row["step"], name)


CONFIGS = {
    "lora": ("--config.mesh.fsdp=2",),
    "full": ("--config.mesh.tensor=2",),
    "dpo": ("--config.reference.cache=true",),
    "reward": (),
    "grpo": ("--config.mesh.fsdp=4",),
    "ppo": (),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_two_processes_train_what_one_does(both, start, tmp_path, kind):
    words = ("--config", f"configs/smoke/{kind}.py", *CONFIGS[kind], "--config.log.writers=(console,jsonl)")
    two = both(*words, "--workdir", tmp_path / "two")
    assert [process.ends() for process in two] == [0, 0], [process.said() for process in two]
    one = start("train", *words, "--workdir", tmp_path / "one", JAX_NUM_CPU_DEVICES="4")
    assert one.ends() == 0, one.said()
    assert_like(tmp_path / "two", tmp_path / "one")
    names = {str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*") if path.is_file()}
    found = {str(path.relative_to(tmp_path / "two")) for path in (tmp_path / "two").rglob("*") if path.is_file()}
    in_checkpoints = lambda name: name.startswith("checkpoints/")  # Orbax names its files by process
    assert {n for n in found if not in_checkpoints(n)} == {n for n in names if not in_checkpoints(n)}
    said = [line for line in two[1].said()[0].splitlines() if not line.startswith("[Gloo]")]
    assert said == [], "the first process speaks"


def test_a_signal_to_one_process_stops_both_and_they_go_on_as_if_nothing_had_happened(both, words, tmp_path):
    wide = {"data__batch_size": 8}
    whole = both(*words(tmp_path / "whole", **wide))
    assert [process.ends() for process in whole] == [0, 0], [process.said() for process in whole]
    run = tmp_path / "run"
    stopped = both(*words(run, **wide))
    assert stopped[0].until(lambda: processes.lines(run) > 1)
    stopped[1].send(signal.SIGTERM)
    assert [process.ends() for process in stopped] == [0, 0], [process.said() for process in stopped]
    assert not (run / "DONE").exists()
    resumed = both("--workdir", run, "--resume")
    assert [process.ends() for process in resumed] == [0, 0], [process.said() for process in resumed]
    processes.assert_same_run(run, tmp_path / "whole")


def test_what_is_wrong_for_one_process_is_said_by_both(both, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    two = both("--config", "configs/smoke/lora.py", "--workdir", tmp_path)
    assert [process.ends() for process in two] == [2, 2]
    for process in two:
        assert "holds files that are no run of ftjax (notes.txt)" in process.said()[1]
    two = both("--config", "configs/ppo/pipeline.py:debug", "--workdir", tmp_path / "pipeline")
    assert [process.ends() for process in two] == [2, 2]
    assert "a pipeline is run by one process" in two[0].said()[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--coordinator", "here"), "'here' is no HOST:PORT"),
        (("--coordinator", "here:1", "--processes", "2", "--process", "2"), "--process 2 of --processes 2"),
        (("--processes", "2"), "go with --coordinator"),
    ],
)
def test_flags_that_do_not_fit_are_named(start, tmp_path, words, says):
    process = start("train", "--config", "configs/smoke/lora.py", "--workdir", tmp_path / "run", *words)
    assert process.ends() == 2
    assert says in process.said()[1]
    assert not (tmp_path / "run").exists()
