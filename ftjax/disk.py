"""The disk below the files that we write: how much room it has, and names that last."""

import errno
import os
from pathlib import Path
import shutil

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing to a full disk raises


def existing(path: Path) -> Path:
    """Returns the nearest folder above `path`, or itself, that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def free(path: Path) -> int:
    """Returns the bytes that are free where `path` is, or is going to be."""
    return shutil.disk_usage(existing(path)).free


def sync_folder(folder: Path) -> None:
    """Writes the names in a folder through to the disk, so that a rename survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
