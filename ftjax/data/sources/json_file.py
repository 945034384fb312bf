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
    whole = files.text(path)
    start = _skip(whole, 0)
    inside_list = whole[start] == "["
    position, line, seen = _skip(whole, start + 1) if inside_list else start, 1, 0
    while True:
        line += whole.count("\n", seen, position)
        seen = position
        if position >= len(whole) or (inside_list and whole[position] == "]"):
            break
        where = f"{path}:{line}"
        row, position = _object(whole, position, where)
        rows = row.get("data")
        if not inside_list and isinstance(rows, list) and rows and all(isinstance(item, dict) for item in rows):
            yield from ((f"{where} (data[{index}])", item) for index, item in enumerate(rows))
        else:
            yield where, row
        position = _skip(whole, position)
        if inside_list and position < len(whole) and whole[position] == ",":
            position = _skip(whole, position + 1)
        elif inside_list and (position >= len(whole) or whole[position] != "]"):
            raise errors.UserError(f"{where}: broken JSON after this row: expected ',' or ']'")
    if not inside_list:
        return
    if position >= len(whole):
        raise errors.UserError(f"{path}:{line}: broken JSON: the list is not closed with ']'; the file may be cut off")
    if _skip(whole, position + 1) < len(whole):
        raise errors.UserError(f"{path}:{line}: broken JSON: text after the closing ']' of the list")
    if position == _skip(whole, start + 1):
        raise errors.UserError(f"{path}: the list is empty; a data file holds at least one row")


def _skip(whole: str, position: int) -> int:
    match = _SPACE.match(whole, position)
    assert match is not None
    return match.end()


def _object(whole: str, position: int, where: str) -> tuple[dict[str, Any], int]:
    try:
        row, end = json.JSONDecoder().raw_decode(whole, position)
    except json.JSONDecodeError as bad:
        file = where.rpartition(":")[0]
        raise errors.UserError(f"{file}:{bad.lineno}: broken JSON at column {bad.colno}: {bad.msg}") from None
    except RecursionError:
        raise errors.UserError(f"{where}: JSON nested too deeply; a row must be one flat object") from None
    if not isinstance(row, dict):
        raise errors.UserError(f"{where}: a row must be a JSON object {{...}}, not {type(row).__name__}")
    return row, end
