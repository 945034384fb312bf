"""JSON Lines: one object a line, plain or gzip."""

from collections.abc import Iterator
import json
from typing import Any

from ftjax.data import files

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson")


def accepts(path: str) -> bool:
    """Tells by its ending whether the path is a JSON Lines file."""
    return path.endswith(SUFFIXES)


def read(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:line", object) of each line; blank lines are skipped."""
    return files.strictly(attempts(path))


def attempts(path: str) -> Iterator[tuple[str, dict[str, Any] | files.BadRow]]:
    """Yields ("file:line", object or what is wrong with the line)."""
    for number, line in files.attempted_lines(path):
        where = f"{path}:{number}"
        try:
            yield where, line if isinstance(line, files.BadRow) else parse(line, where)
        except files.BadRow as bad:
            yield where, bad


def parse(line: str, where: str) -> dict[str, Any]:
    """Returns the JSON object that one line holds."""
    try:
        row = json.loads(line.rstrip())  # else what is missing at the end of a line is missed at column 1 of the next
    except json.JSONDecodeError as bad:
        raise files.BadRow(
            "broken_json", f"{where}: broken JSON at column {bad.colno}: {bad.msg}; each line must be one JSON object"
        ) from None
    except ValueError:  # Python's limit for the digits of an integer
        raise files.BadRow("broken_json", f"{where}: broken JSON: a number of thousands of digits; mend it") from None
    except RecursionError:
        raise files.BadRow("broken_json", f"{where}: JSON nested too deeply; each line must be one flat row") from None
    if not isinstance(row, dict):
        raise files.BadRow("data_type", f"{where}: a row must be a JSON object {{...}}, not {type(row).__name__}")
    return row
