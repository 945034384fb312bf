"""A JSON file: a list of objects, one object (a single row), {"data": [...]}, or JSON Lines under the wrong name."""

from collections.abc import Iterator
import json
import re
from typing import Any

from ftjax import errors
from ftjax.data import files

SUFFIXES = (".json", ".json.gz")
_SPACE = re.compile(r"[ \t\r\n]*")


def accepts(path: str) -> bool:
    """Tells by its ending whether the path is a JSON file."""
    return path.endswith(SUFFIXES)


def read(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields a place and the object of each row; see `attempts`."""
    return files.strictly(attempts(path))


def attempts(path: str) -> Iterator[tuple[str, dict[str, Any] | files.BadRow]]:
    """Yields ("file:line", object or what is wrong with it), with the line where the object begins.

    Where rows share a line, as `json.dump` writes a list, each is "file:line (row n)": no two have one place. After
    broken JSON nothing more can be read.
    """
    try:
        whole = files.text(path)
    except files.BadRow as bad:
        yield str(bad).partition(": ")[0], bad
        return
    found = [*_rows(path, whole)]
    numbers = [line if index is None else index + 1 for line, index, row in found if not isinstance(row, files.BadRow)]
    shared = len({*numbers}) < len(numbers)
    for number, (line, index, row) in enumerate(found, start=1):
        where = f"{path}:{line}" + (f" (row {number})" if shared else "" if index is None else f" (data[{index}])")
        if isinstance(row, dict | files.BadRow):
            yield where, row
        else:
            kind = type(row).__name__
            yield where, files.BadRow("data_type", f"{where}: a row must be a JSON object {{...}}, not {kind}")


def _rows(path: str, whole: str) -> Iterator[tuple[int, int | None, Any]]:
    """Yields the line of each row, its index in {"data": [...]} or None, and the row or what is wrong."""
    listed = whole[_skip(whole, 0)] == "["
    for line, value in _values(path, whole):
        rows = value.get("data") if isinstance(value, dict) and not listed else None
        if isinstance(rows, list) and rows and all(isinstance(item, dict) for item in rows):
            yield from ((line, index, item) for index, item in enumerate(rows))
        else:
            yield line, None, value


def _values(path: str, whole: str) -> Iterator[tuple[int, Any]]:
    """Yields the line where each value of the file begins and the value, or what ends the reading."""
    start = _skip(whole, 0)
    inside_list = whole[start] == "["
    position, line, seen = _skip(whole, start + 1) if inside_list else start, 1, 0
    decoder = json.JSONDecoder()
    while True:
        line += whole.count("\n", seen, position)
        seen = position
        if position >= len(whole) or (inside_list and whole[position] == "]"):
            break
        try:
            row, position = decoder.raw_decode(whole, position)
        except json.JSONDecodeError as bad:
            what = f"broken JSON at column {bad.colno}: {bad.msg}"
            yield bad.lineno, _broken(f"{path}:{bad.lineno}", what)
            return
        except ValueError:  # Python's limit for the digits of an integer
            yield line, _broken(f"{path}:{line}", "broken JSON: a number of thousands of digits; mend it")
            return
        except RecursionError:
            yield line, _broken(f"{path}:{line}", "JSON nested too deeply; a row must be one flat object")
            return
        yield line, row
        position = _skip(whole, position)
        if inside_list and position < len(whole) and whole[position] == ",":
            position = _skip(whole, position + 1)
        elif inside_list and (position >= len(whole) or whole[position] != "]"):
            yield line, _broken(f"{path}:{line}", "broken JSON after this row: expected ',' or ']'")
            return
    if not inside_list:
        return
    if position >= len(whole):
        yield line, _broken(f"{path}:{line}", "broken JSON: the list is not closed with ']'; the file may be cut off")
    elif _skip(whole, position + 1) < len(whole):
        yield line, _broken(f"{path}:{line}", "broken JSON: text after the closing ']' of the list")
    elif position == _skip(whole, start + 1):
        raise errors.UserError(f"{path}: the list is empty; a data file holds at least one row")


def _broken(where: str, what: str) -> files.BadRow:
    return files.BadRow("broken_json", f"{where}: {what}", last=True)


def _skip(whole: str, position: int) -> int:
    match = _SPACE.match(whole, position)
    assert match is not None
    return match.end()
