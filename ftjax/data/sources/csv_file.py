"""CSV (and TSV) with a header line."""

from collections.abc import Iterator
import csv
import io
from typing import Any

from ftjax import errors
from ftjax.data import files

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")


def accepts(path: str) -> bool:
    """Tells by its ending whether the path is a CSV or TSV file."""
    return path.endswith(SUFFIXES)


def read(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:line", {column: text}) of each record, with the line where the record begins."""
    return files.strictly(attempts(path))


def attempts(path: str) -> Iterator[tuple[str, dict[str, Any] | files.BadRow]]:
    """Yields ("file:line", {column: text} or what is wrong with the record)."""
    delimiter = "\t" if ".tsv" in path.rpartition("/")[2] else ","
    csv.field_size_limit(1 << 30)
    try:
        whole = files.text(path)
    except files.BadRow as bad:
        yield str(bad).partition(": ")[0], bad
        return
    reader = csv.reader(io.StringIO(whole, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    begin, found = 1, False
    while True:
        where = f"{path}:{begin}"
        try:
            fields = next(reader, None)
        except csv.Error as bad:
            what = f"{where}: broken CSV: {bad}; quote fields that hold quotes or newlines"
            yield where, files.BadRow("broken_csv", what, last=True)
            return
        begin = reader.line_num + 1
        if fields is None:
            break
        if not fields:
            continue
        if not header:
            header = [name.strip() for name in fields]
            twice = next((name for n, name in enumerate(header) if name and name in header[:n]), None)
            if twice is not None:
                what = f"{where}: the header has the column {twice!r} twice, and a row holds one of them; rename one"
                yield where, files.BadRow("broken_csv", what, last=True)
                return
            continue
        found = True
        if len(fields) == len(header):
            yield where, dict(zip(header, fields, strict=True))
            continue
        yield (
            where,
            files.BadRow(
                "broken_csv",
                f"{where}: {len(fields)} fields, but the header has {len(header)} columns ({', '.join(header)}); "
                "quote fields that hold the delimiter",
            ),
        )
    if not found:
        raise errors.UserError(f"{path}: no rows below the header; a data file holds at least one row")
