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
    """Yields ("file:line", object) of each row, with the line where the object begins."""
    return files.strictly(attempts(path))


def attempts(path: str) -> Iterator[tuple[str, dict[str, Any] | files.BadRow]]:
    """Yields ("file:line", object or what is wrong with it); after broken JSON nothing more can be read."""
    try:
        whole = files.text(path)
    except files.BadRow as bad:
        yield str(bad).partition(": ")[0], bad
        return
    start = _skip(whole, 0)
    inside_list = whole[start] == "["
    position, line, seen = _skip(whole, start + 1) if inside_list else start, 1, 0
    while True:
        line += whole.count("\n", seen, position)
        seen = position
        if position >= len(whole) or (inside_list and whole[position] == "]"):
            break
        where = f"{path}:{line}"
        try:
            row, position = _value(whole, position, where)
        except files.BadRow as bad:
            yield str(bad).partition(": ")[0], bad
            return
        rows = row.get("data") if isinstance(row, dict) else None
        if not isinstance(row, dict):
            kind = type(row).__name__
            yield where, files.BadRow("data_type", f"{where}: a row must be a JSON object {{...}}, not {kind}")
        elif not inside_list and isinstance(rows, list) and rows and all(isinstance(item, dict) for item in rows):
            yield from ((f"{where} (data[{index}])", item) for index, item in enumerate(rows))
        else:
            yield where, row
        position = _skip(whole, position)
        if inside_list and position < len(whole) and whole[position] == ",":
            position = _skip(whole, position + 1)
        elif inside_list and (position >= len(whole) or whole[position] != "]"):
            yield where, files.BadRow("broken_json", f"{where}: broken JSON after this row: expected ',' or ']'")
            return
    if not inside_list:
        return
    if position >= len(whole):
        what = "the list is not closed with ']'; the file may be cut off"
        yield f"{path}:{line}", files.BadRow("broken_json", f"{path}:{line}: broken JSON: {what}")
    elif _skip(whole, position + 1) < len(whole):
        what = "text after the closing ']' of the list"
        yield f"{path}:{line}", files.BadRow("broken_json", f"{path}:{line}: broken JSON: {what}")
    elif position == _skip(whole, start + 1):
        raise errors.UserError(f"{path}: the list is empty; a data file holds at least one row")


def _skip(whole: str, position: int) -> int:
    match = _SPACE.match(whole, position)
    assert match is not None
    return match.end()


def _value(whole: str, position: int, where: str) -> tuple[Any, int]:
    try:
        return json.JSONDecoder().raw_decode(whole, position)
    except json.JSONDecodeError as bad:
        at = f"{where.rpartition(':')[0]}:{bad.lineno}"
        raise files.BadRow("broken_json", f"{at}: broken JSON at column {bad.colno}: {bad.msg}") from None
    except ValueError:  # Python's limit for the digits of an integer
        raise files.BadRow("broken_json", f"{where}: broken JSON: a number of thousands of digits; mend it") from None
    except RecursionError:
        raise files.BadRow("broken_json", f"{where}: JSON nested too deeply; a row must be one flat object") from None
