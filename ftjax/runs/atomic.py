"""Files that are there whole or not at all, also after kill -9 and on a full disk.

Each is written under another name beside its place, flushed to the disk, and renamed: a rename is one step.
"""

from collections.abc import Iterator
import contextlib
import errno
import json
import math
import numbers
import os
from pathlib import Path
from typing import Any

from ftjax import disk, errors

SUFFIX = ".ftjax-tmp"
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Returns a context in which a full disk, a missing permission or a file in the place of a folder is a UserError
    that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in disk.FULL:
            free = disk.free(path) / 1e6
            raise errors.UserError(
                f"disk full while writing {path} ({free:.0f} MB free); free some space and start again with --resume"
            ) from error
        if error.errno in _REFUSED:
            raise errors.UserError(f"{path} cannot be written ({error.strerror}); give another --workdir") from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}{SUFFIX}")
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        disk.sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Writes a JSON file, keys sorted, whole or not at all; any number (NumPy's, a 0-d array) is a number."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True, default=number) + "\n")


def sweep(folder: Path) -> None:
    """Removes what an earlier process, killed in the middle of a write, has left in the folder."""
    for leftover in folder.glob(f".*{SUFFIX}"):
        leftover.unlink(missing_ok=True)


def number(value: Any) -> int | float | str:
    """Returns a JSON value for a number of another library, or the text of a path."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def strict(data: Any) -> Any:
    """Returns the same data for strict JSON: NaN and infinities become `"NaN"`, `"-Infinity"`, which float() reads."""
    if isinstance(data, dict):
        return {str(key): strict(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [strict(value) for value in data]
    if data is None or isinstance(data, str | bool | int):
        return data
    value = number(data)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
