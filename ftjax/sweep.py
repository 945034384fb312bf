"""A list of configurations -> a folder of finished runs with one table; what is done is not done again.

A composition root: a run is started here in this process, or by `launch` in one of its own. A run that fails is noted
and the next one starts. Every run has a folder that scripts/train.py could have made.
"""

from collections.abc import Callable, Mapping
import contextlib
import fcntl
import gc
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

import jax

from ftjax import config as configs
from ftjax import experiment, run
from ftjax.errors import UserError
from ftjax.runs import atomic, sweeps
from ftjax.runs import folder as folders

Say = Callable[[str], None]
Launch = Callable[[str, Mapping[str, Any], Path, bool], None]  # config spec, changes, run folder, whether to resume


class InterruptedSweepError(Exception):
    """A run was saved after a signal: the sweep ends here, and the same command goes on."""


def plan(spec: str, common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the changes of each run by its name; raises where a change does not fit the config or a name comes twice.

    `common` are changes of every run, those of the command line.
    """
    entries: dict[str, dict[str, Any]] = {}
    for changes in configs.sweep(spec):
        name = sweeps.name_of(changes)
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
    for name, changes in entries.items():
        path = folder / name / "config.json"
        if not path.exists():
            continue
        wanted = configs.override(configs.load(spec), {**changes, **common})
        both = configs.difference(json.loads(path.read_text(encoding="utf-8")), wanted.to_dict())
        for key, (old, new) in both.items():
            if old is ...:  # newer than the run
                continue
            raise UserError(
                f"{folder / name} was run with another config ({key}: {old!r}, now {new!r}); give another --workdir"
            )


def sweep(
    folder: Path,
    spec: str,
    entries: Mapping[str, dict[str, Any]],
    *,
    common: Mapping[str, Any],
    launch: Launch,
    metric: str,
    say: Say,
) -> list[sweeps.Row]:
    """Returns the rows of all runs, after those that were missing have run one after another.

    Table and plot of `metric` are written after every run. Raises InterruptedSweepError after a run that was stopped.
    """
    check(folder, spec, entries, common)
    folder.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    with _owned(folder):
        atomic.write_json(folder / "sweep.json", {"config": spec, "common": dict(common), "runs": dict(entries)})
        for number, (name, changes) in enumerate(entries.items(), start=1):
            path, label = folder / name, f"{number} of {len(entries)}: {name}"
            if (path / "DONE").exists():
                say(f"{label} is done")
                continue
            say(label)
            try:
                launch(spec, {**changes, **common}, path, folders.started(path))
            except UserError as error:
                failures[name] = str(error)
            except Exception as error:  # a fault of ours or of a library: the other runs still count
                failures[name] = f"{type(error).__name__}: {error}"
            if name in failures:
                say(f"{name} failed: {failures[name]}")
            elif not (path / "DONE").exists():
                raise InterruptedSweepError(name)
            collect(folder, entries, failures, metric=metric)
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


def train_apart(spec: str, changes: Mapping[str, Any], path: Path, resume: bool) -> None:
    """Trains one run in a process of its own; what it prints goes to a file beside the run folder."""
    log = path.with_name(f"{path.name}.log")
    with log.open("a", encoding="utf-8") as out:
        command = [sys.executable, *words(spec, changes, path, resume)]
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("error: ") if done.returncode > 0 and lines else "it was killed"
        raise UserError(f"{said} (exit status {done.returncode}; {log})")


def train_here(spec: str, changes: Mapping[str, Any], path: Path, resume: bool) -> None:
    """Trains one run in this process. Programs compiled for it are dropped at the end, and so is their memory."""
    try:
        built = experiment.build(configs.override(configs.load(spec), changes))
        if resume:
            run.check_same(built, path)
        folder = folders.create(
            path,
            name=path.name,
            config=built.config,
            command=["python", *words(spec, changes, path, resume)],
            resume=resume,
            may_change=experiment.MAY_CHANGE,
        )
        with folder.owned():
            run.train(built, folder, lambda _: None)
    finally:
        jax.clear_caches()
        gc.collect()


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
