"""Scores of the rows of a data file: FILE.scores.parquet, one line a row, and a manifest that says of what and by whom.

A column is a line of NUMBERS or FLAGS; docs/data.md says what each means. Where a row has no value, it is null in the
file and NaN here. `why` says why a row has none at all. The manifest is in the metadata of the Parquet schema.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import files, versions

FORMAT = 1
SUFFIX = ".scores.parquet"
NEIGHBOURS = 5  # whose mean distance is the outlier score
NUMBERS = (
    *("nll", "tokens", "nll_per_token", "nll_without_prompt", "ifd", "pass_rate", "learning_value", "outlier"),
    *("rejected_nll", "rejected_tokens", "rejected_nll_per_token"),
)
FLAGS = ("handled", "prefers_chosen")
COUNTS = ("tokens", "rejected_tokens")  # NUMBERS that are whole
NAMES = ("file", "model", "adapter")  # of a manifest: how they were called; what they hold is told by the hashes
_KEY = b"ftjax.scores"
_BLOCK = 1024  # rows whose distances to all others are in memory at a time


class ManifestError(errors.UserError):
    """Scores were made of something else, or otherwise."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of all rows of a file, in its order."""

    manifest: dict[str, Any]
    where: list[str]
    why: list[str | None]
    values: dict[str, np.ndarray]  # float64 [rows] of each of NUMBERS and FLAGS, NaN where there is none
    embedding: np.ndarray  # float16 [rows, D], NaN where there is none

    @property
    def scored(self) -> np.ndarray:
        """Which rows have scores, bool [rows]."""
        return np.array([why is None for why in self.why], bool)


class Part(NamedTuple):
    """Scores of some rows: what is kept while a file is being scored."""

    rows: np.ndarray  # int64 [n]
    values: dict[str, np.ndarray]
    embedding: np.ndarray


def place(file: str) -> Path:
    """Returns where the scores of a data file are: beside it; of a set of the made world, in the current folder."""
    if file.startswith("world:"):
        return Path(re.sub(r"\W+", "-", file) + SUFFIX)
    return Path(file.rstrip("/") + SUFFIX)


def blank(count: int, width: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns values and embeddings of so many rows that have none."""
    values = {name: np.full(count, np.nan) for name in (*NUMBERS, *FLAGS)}
    return values, np.full((count, width), np.nan, np.float16)


def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """Raises a ManifestError where scores at `path` were made of other rows, by another model or in another way."""
    keys = [key for key in {**found, **wanted} if key not in NAMES and found.get(key) != wanted.get(key)]
    if not keys:
        return
    if "rows_hash" in keys:
        raise ManifestError(
            f"{path} holds scores of {found['rows']:,} other rows: {wanted['file']} has changed since; move it away, "
            "or give another --out"
        )
    told = "; ".join(f"{key}: {_short(found.get(key))}, now {_short(wanted.get(key))}" for key in keys)
    raise ManifestError(f"{path} was made otherwise ({told}); move it away, or give another --out")


def _short(value: Any) -> str:
    text = str(value)
    return text[: versions.SHORT] if re.fullmatch(r"[0-9a-f]{64}", text) else text


def directions(embedding: np.ndarray) -> np.ndarray:
    """Returns embeddings less their mean, each of length 1, float32: what all rows have in common tells none apart."""
    centred = embedding.astype(np.float32) - embedding.astype(np.float32).mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def outliers(embedding: np.ndarray) -> np.ndarray:
    """Returns the mean distance of each embedding to its five nearest neighbours, float64; NaN for a row alone.

    The distance is 1 - cosine of the `directions`: 0 to 2. Distance to the k nearest is a common measure of outliers
    (Ramaswamy et al. 2000; their mean: Angiulli and Pizzuti 2002).
    """
    count = len(embedding)
    nearest = min(NEIGHBOURS, count - 1)
    if nearest < 1:
        return np.full(count, np.nan)
    unit, found = directions(embedding), np.empty(count)
    for first in range(0, count, _BLOCK):
        similar = unit[first : first + _BLOCK] @ unit.T
        similar[np.arange(len(similar)), first + np.arange(len(similar))] = -np.inf  # not itself
        best = np.partition(similar, count - nearest, axis=1)[:, count - nearest :]
        found[first : first + _BLOCK] = 1 - best.mean(axis=1, dtype=np.float64)
    return np.maximum(found, 0.0)


def write(path: Path, scores: Scores) -> None:
    """Writes the Parquet file, whole or not at all."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, Any] = {
        "row": pyarrow.array(np.arange(len(scores.where), dtype=np.int32)),
        "where": pyarrow.array(scores.where, pyarrow.string()),
        "why": pyarrow.array(scores.why, pyarrow.string()),
    }
    for name in (*NUMBERS, *FLAGS):
        values, none = scores.values[name], np.isnan(scores.values[name])
        kind = pyarrow.bool_() if name in FLAGS else pyarrow.int32() if name in COUNTS else pyarrow.float64()
        filled = np.where(none, 0, values).astype(kind.to_pandas_dtype())
        columns[name] = pyarrow.array(filled, kind, mask=none)
    rows, width = scores.embedding.shape
    flat = pyarrow.array(np.nan_to_num(scores.embedding).ravel(), pyarrow.float16())
    columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(
        flat, width, mask=pyarrow.array(~scores.scored) if rows else None
    )
    told = {_KEY: json.dumps(scores.manifest, ensure_ascii=False).encode()}
    with files.replacing(path) as stream:
        parquet.write_table(pyarrow.table(columns).replace_schema_metadata(told), stream)


def manifest(path: Path) -> dict[str, Any]:
    """Returns the manifest of scores; raises a UserError for a file that has none."""
    import pyarrow
    from pyarrow import parquet

    try:
        told = json.loads((parquet.read_schema(files.regular(path)).metadata or {})[_KEY])
    except (pyarrow.ArrowInvalid, KeyError, ValueError):
        raise errors.UserError(f"{path}: no scores of data.py score; make them with it, or name another file") from None
    if told.get("format") != FORMAT:
        raise errors.UserError(f"{path}: format {told.get('format')!r}, but this ftjax reads {FORMAT}; score again")
    return told


def read(path: Path) -> Scores:
    """Returns scores as they were written."""
    from pyarrow import parquet

    told = manifest(path)
    table = parquet.read_table(path)
    number = lambda name: table[name].cast("float64").to_numpy() if name in NUMBERS else _flag(table[name].to_pylist())
    held = table["embedding"].combine_chunks()
    width = held.type.list_size
    why = table["why"].to_pylist()
    embedding = held.values.to_numpy(zero_copy_only=False).astype(np.float16).reshape(-1, width).copy()
    embedding[[reason is not None for reason in why]] = np.nan
    values = {name: np.array(number(name), np.float64) for name in (*NUMBERS, *FLAGS)}
    return Scores(told, table["where"].to_pylist(), why, values, embedding)


def _flag(values: Sequence[bool | None]) -> list[float]:
    return [np.nan if value is None else float(value) for value in values]


def of_file(file: str, path: Path | None) -> Scores:
    """Returns the scores of a data file from beside it, or from `path`.

    A UserError says how to make them where there are none, and where the file is not what was scored.
    """
    place_ = place(file) if path is None else path
    if not place_.exists():
        raise errors.UserError(
            f"{file} has no scores ({place_} is not there); make them with: python scripts/data.py score {file} "
            "--model DIR"
        )
    found = read(place_)
    if found.manifest["rows_hash"] != versions.now(file):
        raise errors.UserError(
            f"{file} has changed since it was scored ({found.manifest['rows']:,} rows then); move {place_} away and "
            f"run: python scripts/data.py score {file} --model {found.manifest['model']}"
        )
    return found


def write_part(folder: Path, number: int, part: Part) -> None:
    """Writes the scores of some rows, whole or not at all."""
    with files.replacing(_part(folder, number)) as stream:
        np.savez(stream, allow_pickle=False, rows=part.rows, embedding=part.embedding, **part.values)


def read_part(folder: Path, number: int) -> Part | None:
    """Returns the scores of some rows, None where they are not there."""
    path = _part(folder, number)
    if not path.exists():
        return None
    with np.load(path) as held:
        return Part(held["rows"], {name: held[name] for name in (*NUMBERS, *FLAGS)}, held["embedding"])


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06}.npz"
