"""Opening what the user named: did-you-mean for a missing file, gzip, UTF-8 with the line and byte of a bad one."""

from collections.abc import Iterable, Iterator
import contextlib
import difflib
import gzip
import hashlib
import json
import os
from pathlib import Path
import re
from typing import Any, BinaryIO, cast
import zlib

from ftjax import errors

_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair: JSON can hold it escaped, UTF-8 cannot


class BadRow(errors.UserError):
    """A row that cannot be read though its file can; `rule` is the rule of `checks/` that it breaks.

    `last`: what stands behind it in the file could not be read either, and is not known.
    """

    def __init__(self, rule: str, message: str, *, last: bool = False) -> None:
        super().__init__(message)
        self.rule, self.last = rule, last


def strictly(attempts: Iterator[tuple[str, dict[str, Any] | BadRow]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields places and rows, and raises the first row that cannot be read."""
    for where, row in attempts:
        if isinstance(row, BadRow):
            raise row
        yield where, row


def close_to(name: str, known: list[str]) -> str:
    """Returns ' (did you mean ...?)' when one of `known` looks like `name`, else an empty string."""
    lower = {word.lower(): word for word in known}
    found = difflib.get_close_matches(name.lower(), list(lower), n=1)
    return f" (did you mean {lower[found[0]]!r}?)" if found else ""


def existing(path: str | Path) -> Path:
    """Returns the path if it exists; the UserError for one that does not names the closest sibling."""
    path = Path(path)
    if path.exists():
        return path
    parent = path.parent
    if not parent.is_dir():
        raise errors.UserError(f"{path}: there is no folder {str(parent)!r}; check the path")
    siblings = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    hint = close_to(path.name, siblings)
    if not hint:
        hint = f"; {str(parent)!r} holds {', '.join(siblings[:8]) or 'nothing'}{', ...' if len(siblings) > 8 else ''}"
    raise errors.UserError(f"{path}: no such file{hint}")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _decode(raw: bytes, path: Path, line: int, offset: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        byte = offset + bad.start
        kind = " (it looks like UTF-16)" if line == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise BadRow(
            "not_utf8",
            f"{path}:{line + raw[: bad.start].count(10)}: not UTF-8 at byte {byte} of the file "
            f"(0x{raw[bad.start]:02x}){kind}; save the file as UTF-8",
        ) from None


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, text) of the lines of a UTF-8 file, gzip or plain, that are not blank."""
    for number, line in attempted_lines(path):
        if isinstance(line, BadRow):
            raise line
        yield number, line


def attempted_lines(path: str | Path) -> Iterator[tuple[int, str | BadRow]]:
    """Yields what `lines` yields, and in the place of a line that is not UTF-8 what is wrong with it."""
    path = regular(path)
    offset, found = 0, False
    try:
        with _open(path) as stream:
            for number, raw in enumerate(stream, start=1):
                start = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
                line: str | BadRow
                try:
                    line = _decode(raw[start:], path, number, offset + start)
                except BadRow as bad_row:
                    line = bad_row
                offset += len(raw)
                if isinstance(line, BadRow) or line.strip():
                    found = True
                    yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as bad:
        raise errors.UserError(f"{path}: not a whole gzip file ({bad}); copy or download it again") from None
    if not found:
        raise errors.UserError(f"{path}: the file is empty; a data file holds at least one row")


def text(path: str | Path) -> str:
    """Returns the whole of a UTF-8 text file, gzip or plain, without a byte-order mark."""
    path = regular(path)
    try:
        with _open(path) as stream:
            raw = stream.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as bad:
        raise errors.UserError(f"{path}: not a whole gzip file ({bad}); copy or download it again") from None
    start = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    try:
        whole = _decode(raw[start:], path, 1, start)
    except BadRow as bad_row:
        raise BadRow(bad_row.rule, str(bad_row), last=True) from None
    if not whole.strip():
        raise errors.UserError(f"{path}: the file is empty; a data file holds at least one row")
    return whole


def regular(path: str | Path) -> Path:
    """Returns the path of an existing, readable file that is no folder."""
    path = existing(path)
    if path.is_dir():
        raise errors.UserError(f"{path}: is a folder; name a file in it")
    try:
        path.open("rb").close()
    except OSError as bad:
        raise errors.UserError(f"{path}: cannot be read ({bad.strerror})") from None
    return path


def digest(path: str | Path) -> str:
    """Returns the sha256 of a file's bytes, or of the names and bytes of every file in a folder."""
    path = existing(path)
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            total.update(f"{file.relative_to(path) if file != path else ''}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    total.update(block)
    return total.hexdigest()


def write_new(path: str | Path, pieces: Iterable[str]) -> None:
    """Writes a text file whole or not at all; a UserError says where there is one already."""
    refuse_taken(path)
    write_over(path, pieces)


def refuse_taken(path: str | Path) -> None:
    """Raises a UserError where there is a file already."""
    if os.path.lexists(path):  # a link that leads nowhere, too
        raise errors.UserError(
            f"{path}: is there already, and nothing of yours is written over; move it or name another"
        )


def write_over(path: str | Path, pieces: Iterable[str]) -> None:
    """Writes a text file whole or not at all, in the place of one that may be there."""
    path = Path(path)
    if not path.parent.is_dir():
        raise errors.UserError(f"{path}: there is no folder {str(path.parent)!r}; make it first")
    with replacing(path) as stream:
        stream.writelines(piece.encode() for piece in pieces)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Returns a context with a file that takes its place, flushed to the disk, where the context ends without error."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_rows(path: str | Path, values: Iterable[Any]) -> None:
    """Writes rows as JSON Lines, whole or not at all; a file that is there is refused, and a value that JSON lacks."""
    write_new(path, (f"{line(value, f'row {number}')}\n" for number, value in enumerate(values, start=1)))


def as_text(value: Any) -> str:
    """Returns what JSON says of a value that it has no form for: dates and decimals of Parquet as text, no bytes."""
    if isinstance(value, bytes | bytearray | memoryview):
        shown = bytes(value)[:12]
        raise errors.UserError(f"JSON cannot hold bytes ({shown!r}); leave the column out, or make it text (base64)")
    return str(value)


def line(value: Any, name: str) -> str:
    """Returns a row as a line of JSON; a UserError that begins with `name` says what JSON has no form for."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=as_text)
    except errors.UserError as bad:
        raise errors.UserError(f"{name}: {bad}") from None
    except ValueError:
        raise errors.UserError(
            f"{name}: JSON cannot hold a number that is not finite (NaN, Infinity); put null or text in its place"
        ) from None
    return text if _SURROGATE.search(text) is None else json.dumps(value, default=as_text)
