"""Whole commands in processes of their own: started, watched, killed, and their runs compared bit by bit."""

import json
import os
from pathlib import Path
import subprocess
import sys
import time

from tests import bases

ROOT = bases.ROOT
# Speeds, times and memory are the machine's; everything else of a line of metrics.jsonl is the run's.
OF_THE_MACHINE = ("steps_per_second", "tokens_per_second", "eta_seconds", "memory_", "device_memory_", "time/")


def environment():
    """Returns the variables of a user's process: one device, and a cache of compiled programs that all tests share."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    return kept | {"JAX_PLATFORMS": "cpu", "FTJAX_CACHE": str(ROOT / "build" / "e2e_cache"), "COLUMNS": "200"}


class Process:
    """A command that runs, with its output in files: a full pipe would stop it."""

    def __init__(self, words, folder, **variables):
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.popen = subprocess.Popen(
                [sys.executable, *map(str, words)], cwd=ROOT, env=environment() | variables, stdout=out, stderr=err
            )

    def until(self, happens, seconds=90):
        """Returns whether it happened while the process was alive; looks every millisecond."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if happens():
                return True
            if self.popen.poll() is not None:
                return bool(happens())
            time.sleep(0.001)
        self.popen.kill()
        raise AssertionError(f"it did not come to it in {seconds} s: {self.said()}")

    def send(self, number):
        """Sends a signal."""
        self.popen.send_signal(number)

    def kill(self):
        """Ends the process as a power cut does."""
        self.popen.kill()
        self.popen.wait()

    def ends(self, seconds=600):
        """Returns the exit status."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise AssertionError(f"still running after {seconds} s: {self.said()}") from None

    def said(self):
        """Returns standard output and standard error."""
        return self.out.read_text(), self.err.read_text()


def metrics(folder):
    """Returns the lines of metrics.jsonl without what is the machine's."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if not name.startswith(OF_THE_MACHINE)} for row in rows]


def rows(path):
    """Returns the lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder):
    """Returns the bytes of all files below a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_run(one: Path, other: Path, result: str = "adapter/adapter_model.safetensors") -> None:
    """Two run folders hold the same numbers, texts and weights, to the bit."""
    assert metrics(one) == metrics(other)
    assert (one / result).read_bytes() == (other / result).read_bytes()
    assert files(one / "samples") == files(other / "samples")
    assert (one / "answers.jsonl").read_bytes() == (other / "answers.jsonl").read_bytes()
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (one, other))
    for name in ("held_out.jsonl", "retention.jsonl"):
        assert (one / name).exists() == (other / name).exists()
        assert not (one / name).exists() or (one / name).read_bytes() == (other / name).read_bytes()
    for name in ("reason", "step", "checkpoint", "before", "after", "change", "num_tokens"):
        assert first[name] == second[name], name
    assert (one / "DONE").exists()
    assert (other / "DONE").exists()


def lines(folder: Path) -> int:
    """Returns how many lines metrics.jsonl has."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
