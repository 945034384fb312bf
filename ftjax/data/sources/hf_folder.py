"""A folder of Hugging Face `datasets.save_to_disk`; the number after the colon is the row, counted from 1."""

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

from ftjax import errors
from ftjax.data import files

SUFFIXES = ("/ (a folder of datasets.save_to_disk)",)


def accepts(path: str) -> bool:
    """Tells whether the path is a folder."""
    return Path(path).is_dir()


def read(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("folder:row", {column: value}); of several splits, the path must name one ("folder/train")."""
    folder = files.existing(path)
    if (folder / "dataset_dict.json").exists():
        splits = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        if len(splits) > 1:
            names = ", ".join(str(folder / split) for split in splits)
            raise errors.UserError(f"{path}: holds {len(splits)} splits; name one of {names}")
        folder = folder / splits[0]
    if not (folder / "state.json").exists():
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8])
        raise errors.UserError(
            f"{path}: not a datasets folder (no state.json; it holds {inside or 'nothing'}); name a file in it"
        )
    import datasets

    try:
        table = datasets.Dataset.load_from_disk(str(folder))
    except Exception as bad:  # datasets and pyarrow raise many kinds for a damaged folder, all meaning the same
        reason = (str(bad).splitlines() or [type(bad).__name__])[0]
        raise errors.UserError(f"{path}: cannot be read as a datasets folder ({reason}); save it again") from bad
    if not len(table):
        raise errors.UserError(f"{path}: the data set has no rows; it must hold at least one")
    for number, row in enumerate(table, start=1):
        yield f"{path}:{number}", row
