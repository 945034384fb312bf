"""Numbers as lines of JSON: `metrics.jsonl`, one object a line with its `step`. This file is the truth about a run."""

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
from typing import Any

from ftjax import errors
from ftjax.runs import atomic


class Jsonl:
    """Writes `metrics.jsonl`, and tables of texts as `samples/<name>-<step>.jsonl`, below a run folder.

    A line is in the hands of the operating system when `write` returns, so kill -9 loses none; a line torn by a power
    cut or a full disk is removed when the file is opened again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "metrics.jsonl"
        with atomic.disk_errors(self.path):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        self._end = _heal(self._file)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Appends one line. On a full disk the file keeps its whole lines only, and a UserError is raised."""
        values = {name: atomic.strict(number) for name, number in numbers.items()}
        line = (json.dumps({"step": step, **values}) + "\n").encode()
        with atomic.disk_errors(self.path):
            try:
                _write_at(self._file, line, self._end)
            except OSError:
                os.ftruncate(self._file, self._end)
                raise
        self._end += len(line)

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes one file a table, so that a resumed run that comes to the same step again replaces it."""
        path = self.folder / "samples" / f"{name}-{step:06d}.jsonl"
        with atomic.disk_errors(path):
            path.parent.mkdir(exist_ok=True)
        lines = (json.dumps(atomic.strict({"step": step, **row}), ensure_ascii=False) for row in rows)
        atomic.write_text(path, "".join(f"{line}\n" for line in lines))

    def position(self) -> int:
        """Returns the length of the file in bytes, all of them on the disk: what a checkpoint has to remember."""
        with atomic.disk_errors(self.path):
            os.fsync(self._file)
        return self._end

    def truncate(self, position: int) -> None:
        """Cuts the file to a length that `position` returned: a resumed run writes what follows once more."""
        if position > self._end:
            raise errors.UserError(
                f"{self.path} has {self._end} bytes, but {position} when the checkpoint was saved; put the file back "
                "or start a new run"
            )
        os.ftruncate(self._file, position)
        self._end = position

    def cut_after(self, step: int) -> None:
        """Cuts the file before the first line of a later step: what `truncate` does where no position is known."""
        end = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if json.loads(line)["step"] > step:
                break
            end += len(line)
        self.truncate(end)

    def close(self, summary: Mapping[str, Any]) -> None:  # noqa: ARG002 - summary.json is the folder's
        """Closes the file."""
        self.position()
        os.close(self._file)


def read(path: Path) -> list[dict[str, float]]:
    """Returns the lines of a metrics file in order, each a dict of floats; a torn last line is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            rows.append({name: float(value) if name != "step" else int(value) for name, value in row.items()})
    return rows


def _heal(file: int) -> int:
    """Removes a torn last line; returns the length of the file."""
    size = os.fstat(file).st_size
    end = size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end


def _write_at(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
