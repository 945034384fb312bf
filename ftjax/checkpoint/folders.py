"""Folders that appear whole or not at all: written beside their place under another name, then renamed."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import secrets
import shutil

from ftjax import disk
from ftjax.errors import UserError


@contextlib.contextmanager
def written(out_dir: str | Path, *, replace: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yields an empty folder that takes the name `out_dir` at the end; after an error nothing of it is left.

    A folder with content is refused, unless every file in it is one of `replace` (what this writer itself writes).
    No room, no permission, a file in the way: UserError.
    """
    out = Path(out_dir).expanduser()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give the name of a new folder")
    if out.is_dir() and out.samefile(Path.cwd()):
        raise UserError(f"{out}: is the folder that you are in, which would be another one then; give a new folder")
    old = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in old if name not in replace]
    if foreign:
        raise UserError(f"{out}: is not empty ({', '.join(foreign[:3])}); give a new folder, nothing is written over")
    named, out = out, Path(os.path.abspath(out))  # "a/.." has no name; a link keeps its own
    token = secrets.token_hex(4)  # so both names are of nobody else
    beside, aside = out.parent / f"{out.name}.tmp-{token}", out.parent / f"{out.name}.old-{token}"
    try:
        with no_room(named):
            beside.mkdir(parents=True)
            yield beside
            for path in beside.rglob("*"):
                if path.is_file():  # safetensors makes files that nobody else may read
                    path.chmod(beside.stat().st_mode & 0o666)
            sync(beside)
            if out.is_dir():
                out.rename(aside)
            try:
                beside.rename(out)
            except OSError:
                if aside.is_dir():
                    aside.rename(out)
                raise
            disk.sync_folder(out.parent)
            if aside.is_symlink():
                aside.unlink()
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def refuse_content(out_dir: str | Path) -> None:
    """Refuses a folder with content before minutes of work, not after."""
    out = Path(out_dir).expanduser()
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty; give a new folder, nothing is written over")


def check_room(out_dir: str | Path, nbytes: int) -> None:
    """Raises a UserError where fewer than `nbytes` are free on the disk of `out_dir`."""
    out = Path(out_dir).expanduser()
    free = disk.free(out)
    if nbytes > free:
        raise UserError(
            f"{out}: needs {nbytes:,} bytes, and {free:,} are free on that disk; free some, or give a folder elsewhere"
        )


@contextlib.contextmanager
def no_room(target: Path) -> Iterator[None]:
    """Turns a full disk and a folder that may not be written into a UserError that names the target."""
    try:
        yield
    except Exception as error:
        if _is_no_space(error):
            raise UserError(
                f"{target}: no space left on the disk; nothing was written, free some and repeat"
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(f"{target}: may not be written ({error.strerror}); give another folder") from error
        raise


def _is_no_space(error: BaseException | None) -> bool:
    """True for a full disk, however deep in the chain; libraries in C++ and Rust only say it in words."""
    while error is not None:
        words = ("no space left", "os error 28", "disk quota exceeded", "file too large", "os error 27")
        if getattr(error, "errno", None) in disk.FULL or any(word in str(error).lower() for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def sync(folder: Path) -> None:
    """Writes every file of a folder, and the folder, through to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    disk.sync_folder(folder)
