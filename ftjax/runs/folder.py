"""The run folder: everything that says what was run, on what, and how it ended.

A folder is a run once it holds `config.json` and `code.json`; `config.json` is written last, so a process killed before
that leaves no run. One process owns a folder at a time. docs/formats.md lists the files.
"""

from collections.abc import Collection, Iterator, Mapping
import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
from pathlib import Path
import re
import secrets
import shlex
import traceback
from typing import Any

from ftjax import config as configs
from ftjax import disk, errors
from ftjax.runs import atomic, provenance

LOCK = ".lock"
BEFORE_CONFIG = {LOCK, "command.sh", "code.json", "code.patch", "environment.json"}


@dataclasses.dataclass(frozen=True)
class Folder:
    """A run folder that this process owns until `release`."""

    path: Path
    resumed: bool  # True when the folder held this run before
    lock: int  # file descriptor of the lock file

    def json(self, name: str, data: Any) -> None:
        """Writes facts of the run: `tokenizer.json`, `base.json`."""
        atomic.write_json(self.path / name, atomic.strict(data))

    def text(self, name: str, text: str) -> None:
        """Writes a text file of the run, its model card for one."""
        atomic.write_text(self.path / name, text)

    def raw(self, name: str, data: bytes) -> None:
        """Writes a file of the run that is no text."""
        atomic.write_bytes(self.path / name, data)

    def summary(self, numbers: Mapping[str, Any]) -> None:
        """Writes `summary.json`, the final numbers."""
        self.json("summary.json", dict(numbers))

    def done(self) -> None:
        """Writes `DONE`: the run came to its end."""
        self.text("DONE", f"{now()}\n")

    def failed(self, error: BaseException) -> None:
        """Writes `FAILED` with the traceback. Never raises on a full disk: the error itself is what has to be seen."""
        with contextlib.suppress(errors.UserError):
            self.text("FAILED", f"{now()}\n{''.join(traceback.format_exception(error))}")

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Writes `FAILED` where the block raises, and gives the folder free at its end."""
        try:
            yield
        except BaseException as error:
            self.failed(error)
            raise
        finally:
            self.release()

    def release(self) -> None:
        """Gives the folder free for other processes."""
        _unlock(self.lock)


class Followed(Folder):
    """The folder of another process of the same run, which writes it: here all that would be written is left out."""

    def __init__(self, path: Path, resumed: bool) -> None:
        super().__init__(path=path, resumed=resumed, lock=-1)

    def json(self, name: str, data: Any) -> None:
        """Writes nothing."""

    def text(self, name: str, text: str) -> None:
        """Writes nothing."""

    def raw(self, name: str, data: bytes) -> None:
        """Writes nothing."""

    def release(self) -> None:
        """Holds nothing."""


def create(
    workdir: Path | None,
    *,
    name: str,
    config: Mapping[str, Any],
    command: list[str],
    resume: bool,
    may_change: Collection[str],
) -> Folder:
    """Returns the folder of a new run, or with `resume` that of an old one, owned by this process.

    `workdir` None is `runs/<date>-<time>-<name>-<4 hex>`. A resumed run may differ from its old config in `may_change`
    only: keys, or sections written with a dot at the end (`"log."`). Raises UserError on a folder that holds anything
    else, is in use, or cannot be written.
    """
    check(workdir, resume)
    path = workdir or Path("runs") / f"{stamp()}-{slug(name)}-{secrets.token_hex(2)}"
    with atomic.disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
    try:
        is_run = _check(path, resume)  # now that nobody else can write
        atomic.sweep(path)
        if is_run:
            _continue(path, config=config, command=command, may_change=may_change)
        else:
            _begin(path, config=config, command=command)
    except BaseException:
        _unlock(lock)
        raise
    return Folder(path=path, resumed=is_run, lock=lock)


def started(path: Path) -> bool:
    """Returns whether the folder holds a run that can be resumed."""
    return all((path / name).exists() for name in ("config.json", "code.json"))


def check(workdir: Path | None, resume: bool) -> None:
    """Raises what `create` would raise about the folder as it is, so that it shows before the data are read."""
    if workdir is not None:
        _check(workdir, resume)
    elif resume:
        raise errors.UserError("--resume needs the folder of the run; add --workdir runs/NAME")


def changes(old: Mapping[str, Any], new: Mapping[str, Any], may_change: Collection[str]) -> tuple[str, str]:
    """Returns in one line each what a resumed run changes and must not, and what it changes and may.

    A key that the run does not have may come: an older ftjax made the run.
    """
    lines: dict[bool, list[str]] = {False: [], True: []}
    for key, (before, after) in configs.difference(old, new).items():
        allowed = before is ... or any(
            key == entry or (entry.endswith(".") and key.startswith(entry)) for entry in may_change
        )
        lines[allowed].append(f"{key}: {_shown(before)} (run) against {_shown(after)} (now)")
    return ", ".join(lines[False]), ", ".join(lines[True])


def stamp() -> str:
    """Returns the local time as it stands in the name of a run folder."""
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def now() -> str:
    """Returns the time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def slug(name: str) -> str:
    """Returns `name` with only the characters that are safe in a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "run"


def _check(path: Path, resume: bool) -> bool:
    """Returns whether the folder holds a run that may be resumed; raises where the folder must not be touched."""
    with atomic.disk_errors(path):
        there = path.exists()
    above = disk.existing(path)
    if not there and not above.is_dir():
        raise errors.UserError(f"{path} is below {above}, which is a file; give a folder as --workdir")
    if not there:
        if resume:
            raise errors.UserError(
                f"{path} does not exist, so there is nothing to resume; leave out --resume to start it"
            )
        return False
    if not path.is_dir():
        raise errors.UserError(f"{path} is a file; give a folder as --workdir")
    names = {entry.name for entry in path.iterdir() if not entry.name.endswith(atomic.SUFFIX)}
    if {"config.json", "code.json"} <= names:
        if not resume:
            raise errors.UserError(f"{path} holds a run already; continue it with --resume or give another --workdir")
        return True
    half_made = LOCK in names and names <= BEFORE_CONFIG
    if names and not half_made:
        raise errors.UserError(
            f"{path} holds files that are no run of ftjax ({', '.join(sorted(names)[:3])}); give another --workdir"
        )
    return False


def _lock(path: Path) -> int:
    """Returns the descriptor of the locked lock file. The lock ends with its process, however that ends."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    owner = os.pread(lock, 200, 0).decode(errors="replace").strip()
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = owner == _identity()  # lockf never refuses its own process
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            os.close(lock)
            raise
        taken = True
    if taken:
        os.close(lock)
        who = f"process {owner.split()[0]}" if owner else "another process"
        raise errors.UserError(f"{path} is in use by {who}; wait for it, or give another --workdir")
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{_identity()}\n".encode(), 0)
    return lock


def _unlock(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.close(lock)


def _identity() -> str:
    """Returns the process id and the moment this process started: ids come again, in containers at once."""
    pid = os.getpid()
    try:
        started = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        started = "?"
    return f"{pid} {started}"


def _begin(path: Path, *, config: Mapping[str, Any], command: list[str]) -> None:
    code, patch = provenance.code()
    atomic.write_text(
        path / "command.sh", f"#!/usr/bin/env bash\ncd {shlex.quote(str(Path.cwd()))}\n{shlex.join(command)}\n"
    )
    with atomic.disk_errors(path):
        (path / "command.sh").chmod(0o755)
    if patch:
        atomic.write_bytes(path / "code.patch", patch)
    atomic.write_json(path / "environment.json", provenance.environment())
    atomic.write_json(path / "code.json", code)
    atomic.write_json(path / "config.json", dict(config))


def _continue(path: Path, *, config: Mapping[str, Any], command: list[str], may_change: Collection[str]) -> None:
    try:
        old = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise errors.UserError(f"{path / 'config.json'} cannot be read ({error}); the run cannot be resumed") from None
    refused, allowed = changes(old, config, may_change)
    if refused:
        raise errors.UserError(
            f"{path} was run with another config: {refused}; give the values of the run or another --workdir"
        )
    for mark in ("FAILED", "DONE"):
        if (path / mark).exists():
            count = sum(1 for _ in path.glob(f"{mark}.*")) + 1
            (path / mark).replace(path / f"{mark}.{count}")
    code, _ = provenance.code()
    environment = provenance.environment()
    entry = {
        "time": now(),
        "command": shlex.join(command),
        "changed": allowed,
        "code": code,
        "devices": environment["devices"],
    }
    history = path / "resumes.json"
    entries = json.loads(history.read_text(encoding="utf-8")) if history.exists() else []
    atomic.write_json(history, [*entries, entry])
    if allowed:
        atomic.write_json(path / "config.json", dict(config))


def _shown(value: Any) -> str:
    return "nothing" if value is ... else json.dumps(value, default=str)
