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
    delimiter = "\t" if ".tsv" in path.rpartition("/")[2] else ","
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(files.text(path), newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    begin, found = 1, False
    while True:
        where = f"{path}:{begin}"
        try:
            fields = next(reader, None)
        except csv.Error as bad:
            raise errors.UserError(f"{where}: broken CSV: {bad}; quote fields that hold quotes or newlines") from None
        begin = reader.line_num + 1
        if fields is None:
            break
        if not fields:
            continue
        if not header:
            header = [name.strip() for name in fields]
            continue
        if len(fields) != len(header):
            raise errors.UserError(
                f"{where}: {len(fields)} fields, but the header has {len(header)} columns ({', '.join(header)}); "
                "quote fields that hold the delimiter"
            )
        found = True
        yield where, dict(zip(header, fields, strict=True))
    if not found:
        raise errors.UserError(f"{path}: no rows below the header; a data file holds at least one row")
