"""JSON Lines: one object a line, plain or gzip."""

from collections.abc import Iterator
import json
from typing import Any

from ftjax import errors
from ftjax.data import files

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson")


def accepts(path: str) -> bool:
    """Tells by its ending whether the path is a JSON Lines file."""
    return path.endswith(SUFFIXES)


def read(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:line", object) of each line; blank lines are skipped."""
    for number, line in files.lines(path):
        where = f"{path}:{number}"
        yield where, parse(line, where)


def parse(line: str, where: str) -> dict[str, Any]:
    """Returns the JSON object that one line holds."""
    try:
        row = json.loads(line.rstrip())  # else what is missing at the end of a line is missed at column 1 of the next
    except json.JSONDecodeError as bad:
        raise errors.UserError(
            f"{where}: broken JSON at column {bad.colno}: {bad.msg}; each line must be one JSON object"
        ) from None
    except RecursionError:
        raise errors.UserError(f"{where}: JSON nested too deeply; each line must be one flat row") from None
    if not isinstance(row, dict):
        raise errors.UserError(f"{where}: a row must be a JSON object {{...}}, not {type(row).__name__}")
    return row
