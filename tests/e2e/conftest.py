"""Runs of the tiny base as a user starts them, in processes that share a compilation cache."""

import signal

import pytest

from tests import processes


@pytest.fixture
def start(tmp_path_factory):
    """Returns a function: a script and its words -> the process. What is left at the end of the test is killed."""
    running = []

    def run(script, *words, **variables):
        made = processes.Process([f"scripts/{script}.py", *words], tmp_path_factory.mktemp("said"), **variables)
        running.append(made)
        return made

    yield run
    for process in running:
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGKILL)
            process.popen.wait()


@pytest.fixture(scope="session")
def words(tiny_base, tiny_rows):
    """Returns a function: changes of a small run -> the words behind scripts/train.py that start it."""

    def make(workdir, config="sft/jsonl", argument=None, **changes):
        argument = f"data={tiny_rows},model={tiny_base},steps=12" if argument is None else argument
        small = {
            "data.max_length": 64,
            "data.batch_size": 4,
            "adapter.dropout": 0.1,  # so that keys matter
            "optimizer.learning_rate": 1e-2,
            "eval.every": 4,
            "eval.samples": 2,
            "eval.max_new_tokens": 8,
            "checkpoint.every": 3,
            "log.writers": "(console,jsonl)",
        } | {name.replace("__", "."): value for name, value in changes.items()}
        overrides = [f"--config.{name}={value}" for name, value in small.items()]
        return ["--config", f"configs/{config}.py:{argument}", "--workdir", str(workdir), *overrides]

    return make


@pytest.fixture(scope="session")
def whole(tmp_path_factory, words):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    process = processes.Process(["scripts/train.py", *words(folder)], tmp_path_factory.mktemp("said"))
    assert process.ends() == 0, process.said()
    return folder
