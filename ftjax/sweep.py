"""A list of configurations -> a folder of finished runs with one table; what is done is not done again.

A composition root: a run is trained in this process (`here`), or in one of its own, several at once (`Apart`). A run
that fails is noted and the others go on. Every run has a folder that scripts/train.py could have made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import fcntl
import gc
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import jax

from ftjax import config as configs
from ftjax import experiment, run, training_data
from ftjax.errors import UserError
from ftjax.runs import atomic, sweeps
from ftjax.runs import folder as folders

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


class Job(NamedTuple):
    """A run that is to be trained: what is said of it, the config with its changes, its folder."""

    label: str
    name: str
    spec: str
    changes: dict[str, Any]
    path: Path


Tried = tuple[Job, Exception | None]  # and why it failed
Train = Callable[[Sequence[Job], Say], Iterator[Tried]]


class InterruptedSweepError(Exception):
    """A run was saved after a signal: the sweep ends here, and the same command goes on."""


def plan(spec: str, common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the changes of each run by its name; raises where a change does not fit the config or a name comes twice.

    `common` are changes of every run, those of the command line.
    """
    entries: dict[str, dict[str, Any]] = {}
    for changes in configs.sweep(spec):
        name = sweeps.name_of(changes)
        if name in entries and entries[name] != changes:  # only what the name of a folder cannot have differs
            name = sweeps.marked(name, changes)
        if name in entries:
            raise UserError(f"{spec}: the sweep has {name} twice; give each run other changes")
        configs.override(configs.load(spec), {**changes, **common})
        entries[name] = changes
    if not entries:
        raise UserError(f"{spec}: the sweep has no runs; get_sweep must return at least one")
    return entries


def check(folder: Path, spec: str, entries: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any]) -> None:
    """Raises where the folder holds something else, or a run of the same name with another config."""
    if folder.is_file():
        raise UserError(f"{folder} is a file; give a folder as --workdir")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "sweep.json").exists():
        raise UserError(f"{folder} holds files that are no sweep of ftjax; give another --workdir")
    begun = [name for name in entries if (folder / name / "config.json").exists()]
    epochs = _of_one_epoch(folder, spec)
    for name in begun:
        known = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        wanted = _asked(spec, {**entries[name], **common})
        if not wanted["steps"] and name in epochs:  # the run's own config has the steps of its epoch
            wanted = training_data.of_one_epoch(wanted, known["steps"])
        for key, (old, new) in configs.difference(known, wanted).items():
            if old is ...:  # newer than the run
                continue
            raise UserError(
                f"{folder / name} was run with another config ({key}: {old!r}, now {new!r}); give another --workdir"
            )
    anew = lambda run: f"give another --workdir, or move {run} away to have it trained anew"
    training_data.check_unchanged([folder / name for name in begun], anew)


def _of_one_epoch(folder: Path, spec: str) -> set[str]:
    """Returns the names of runs whose steps were asked as 0, one epoch: their own config has the number instead."""
    file = folder / "sweep.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if "one_epoch" in told:
        return set(told["one_epoch"])
    found = set()
    for name, changes in told.get("runs", {}).items():  # of an older ftjax, which kept what was asked alone
        with contextlib.suppress(UserError):  # the config file has changed since
            found |= {name} if not _asked(spec, configs.thaw({**changes, **told["common"]}))["steps"] else set()
    return found


def _asked(spec: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config that a run is asked for."""
    return dict(configs.override(configs.load(spec), changes).to_dict())


def sweep(
    folder: Path,
    spec: str,
    entries: Mapping[str, dict[str, Any]],
    *,
    common: Mapping[str, Any],
    train: Train,
    metric: str,
    say: Say,
) -> list[sweeps.Row]:
    """Returns the rows of all runs, after `train` has run those that were missing.

    Table and plot of `metric` are written after every run. Raises InterruptedSweepError when runs were stopped.
    """
    check(folder, spec, entries, common)
    folder.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    stopped: list[str] = []
    with _owned(folder):
        epochs = _of_one_epoch(folder, spec)
        for name in (name for name in entries if not (folder / name / "config.json").exists()):
            epochs -= {name}
            epochs |= {name} if not _asked(spec, {**entries[name], **common})["steps"] else set()
        told = {"config": spec, "common": dict(common), "runs": dict(entries), "one_epoch": sorted(epochs)}
        atomic.write_json(folder / "sweep.json", told)
        jobs = []
        for number, (name, changes) in enumerate(entries.items(), start=1):
            path, label = folder / name, f"{number} of {len(entries)}: {name}"
            if (path / "DONE").exists():
                say(f"{label} is done")
            else:
                jobs.append(Job(label, name, spec, {**changes, **common}, path))
        for job, error in train(jobs, say):
            if error is not None:  # of the user, of a library or ours: the other runs still count
                failures[job.name] = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                say(f"{job.name} failed: {failures[job.name]}")
            elif not (job.path / "DONE").exists():
                stopped.append(job.name)
                continue
            collect(folder, entries, failures, metric=metric)
        if stopped:
            raise InterruptedSweepError(", ".join(stopped))
        return collect(folder, entries, failures, metric=metric)


def collect(
    folder: Path, entries: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str], *, metric: str
) -> list[sweeps.Row]:
    """Returns the rows of the runs as they are, with table and plot written anew.

    `failures` says why runs failed in this call: one whose config does not build leaves no folder that could say it.
    """
    rows = [sweeps.read(folder, name, changes) for name, changes in entries.items()]
    failed = lambda row: row.status != "done" and row.name in failures
    rows = [row._replace(status="failed", note=failures[row.name]) if failed(row) else row for row in rows]
    sweeps.write(folder, rows, metric=metric)
    return rows


def words(spec: str, changes: Mapping[str, Any], path: Path, resume: bool) -> list[str]:
    """Returns the command line of a run, after the interpreter."""
    flags = [f"--config.{key}={_text(value)}" for key, value in changes.items()]
    go_on = ["--resume"] if resume else []
    return ["scripts/train.py", "--config", spec, *flags, "--workdir", str(path), *go_on]


def here(jobs: Sequence[Job], say: Say, launch: Callable[[Job], None]) -> Iterator[Tried]:
    """Yields each job after `launch` has trained it in this process; none follows one that was stopped."""
    for job in jobs:
        say(job.label)
        error = _tried(launch, job)
        yield job, error
        if _interrupted(job, error):
            return


def _tried(launch: Callable[[Job], None], job: Job) -> Exception | None:
    try:
        launch(job)
    except Exception as error:
        return error
    return None


def _interrupted(job: Job, error: Exception | None) -> bool:
    return error is None and not (job.path / "DONE").exists()


def train_here(job: Job) -> None:
    """Trains one run in this process. Programs compiled for it are dropped at the end, and so is their memory."""
    try:
        built = experiment.build(configs.override(configs.load(job.spec), job.changes))
        resume = folders.started(job.path)
        if resume:
            run.check_same(built, job.path)
        folder = folders.create(
            job.path,
            name=job.name,
            config=built.config,
            command=["python", *words(job.spec, job.changes, job.path, resume)],
            resume=resume,
            may_change=experiment.MAY_CHANGE,
        )
        with folder.owned():
            run.train(built, folder, lambda _: None)
    finally:
        jax.clear_caches()
        gc.collect()


def in_this_process(jobs: Sequence[Job], say: Say) -> Iterator[Tried]:
    """Trains runs one after another in this process: no start-up, but no fence between them."""
    return here(jobs, say, train_here)


class Apart:
    """Trains runs in processes of their own, so many at once; what one prints goes to a file beside its folder.

    A signal reaches the runs through us alone, for they are no part of our group in the terminal: each one saves its
    state and stops, and we wait for it. Once more ends them at once.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()  # a signal's handler may run while its thread holds it
        self._stopped = False

    def __call__(self, jobs: Sequence[Job], say: Say) -> Iterator[Tried]:
        """Yields each job when it has ended; after a signal those that were running, and no others."""
        waiting = list(jobs)[::-1]
        running: dict[futures.Future[Exception | None], Job] = {}
        with futures.ThreadPoolExecutor(self._at_once) as pool, self._signals():
            while True:
                while waiting and len(running) < self._at_once and not self._stopped:
                    job = waiting.pop()
                    say(job.label)
                    running[pool.submit(_tried, self._launch, job)] = job
                if not running:
                    return
                for one in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                    job, error = running.pop(one), one.result()
                    self._stopped |= _interrupted(job, error)
                    yield job, error

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Passes Ctrl-C, SIGTERM and SIGHUP on to the runs inside the block."""
        previous = {}
        with contextlib.suppress(ValueError):  # outside of the main thread
            previous = {number: signal.signal(number, lambda *_: self.stop()) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Has all runs save and stop; called again, it ends them at once."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.send_signal(signal.SIGINT)

    def _launch(self, job: Job) -> None:
        log = job.path.with_name(f"{job.name}.log")
        command = [sys.executable, *words(job.spec, job.changes, job.path, folders.started(job.path))]
        with log.open("a", encoding="utf-8") as out:
            with self._lock:
                if self._stopped:
                    return
                child = subprocess.Popen(
                    command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=self._environment()
                )
                self._children.add(child)
            status = child.wait()
            with self._lock:
                self._children.discard(child)
        if status and not self._stopped:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said = lines[-1].removeprefix("error: ") if status > 0 and lines else "it was killed"
            raise UserError(f"{said} (exit status {status}; {log})")

    def _environment(self) -> dict[str, str]:
        """Returns the environment of a run: JAX takes three quarters of a GPU's memory unless it is told its share."""
        share = {} if self._at_once == 1 else {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / self._at_once:.2f}"}
        return {**share, **os.environ}


@contextlib.contextmanager
def _owned(folder: Path) -> Any:
    """Holds the sweep for this process: two at once would each start the run that the other has begun."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder} is in use by another process; wait for it, or give another --workdir") from None
        yield


def _text(value: Any) -> str:
    """Returns a value as a flag takes it."""
    return json.dumps(value)[1:-1] if isinstance(value, tuple | list) else str(value)
