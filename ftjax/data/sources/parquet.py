"""Parquet files, read batch by batch with pyarrow; the number after the colon is the row, counted from 1."""

from collections.abc import Iterator
from typing import Any

from ftjax import errors
from ftjax.data import files

SUFFIXES = (".parquet",)


def accepts(path: str) -> bool:
    """Tells by its ending whether the path is a Parquet file."""
    return path.endswith(SUFFIXES)


def read(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:row", {column: value}) of each row."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(files.regular(path)) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (pyarrow.ArrowInvalid, OSError) as bad:
        reason = str(bad).splitlines()[0]
        raise errors.UserError(f"{path}: not a readable Parquet file ({reason}); write it again") from None
    if not number:
        raise errors.UserError(f"{path}: the table has no rows; a data file holds at least one row")
