"""Safetensors files of a folder, one or many, read tensor by tensor without mapping the file into memory.

The library judges whether a file is whole; offsets come from its header, so that the peak is the one tensor that is
being read. (A memory map counts every page that was touched, and copies besides.)
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from ftjax.errors import UserError

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class Entry(NamedTuple):
    """A tensor in a file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int


def read_json(file: Path, *, what: str) -> dict[str, Any]:
    """Returns a JSON object; a file that is missing or broken is a UserError that says what it should have been."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; it should be {what}")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: not JSON ({error}); it should be {what}") from None
    if not isinstance(value, dict):
        raise UserError(f"{file}: holds a {type(value).__name__}, not an object; it should be {what}")
    return value


def files(folder: Path, stem: str) -> list[Path]:
    """Returns the files that hold the tensors: `<stem>.safetensors`, or the shards that its index names."""
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in folder.glob(pattern))
        hint = f"it has {', '.join(others[:3])}; convert that to safetensors" if others else "is it the right folder?"
        raise UserError(f"{folder}: no {stem}.safetensors and no {stem}.safetensors.index.json; {hint}")
    named = sorted(set(_weight_map(index).values()))
    missing = [name for name in named if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{index}: names {', '.join(missing)}, which {folder} does not have; copy the missing shards")
    return [folder / name for name in named]


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index, what="the index of a sharded checkpoint").get("weight_map")
    if not isinstance(found, dict) or not found:
        raise UserError(f"{index}: no weight_map; it should be the index of a sharded checkpoint")
    return found


def entries(folder: Path, stem: str = "model") -> dict[str, Entry]:
    """Returns every tensor of a folder by name, checked against the index where there is one."""
    found: dict[str, Entry] = {}
    shards = files(folder, stem)
    for file in shards:
        for entry in _header(file):
            if entry.name in found:
                raise UserError(f"{folder}: tensor {entry.name} is in {found[entry.name].file.name} and in {file.name}")
            found[entry.name] = entry
    if shards[0].name != f"{stem}.safetensors":
        index = folder / f"{stem}.safetensors.index.json"
        for name, file_name in _weight_map(index).items():
            if name not in found or found[name].file.name != file_name:
                raise UserError(f"{index}: says that {name} is in {file_name}, which does not hold it")
    return found


def _header(file: Path) -> list[Entry]:
    """Returns the tensors of one file; a file that is cut short or broken is a UserError."""
    try:
        with safetensors.safe_open(file, framework="numpy"):
            pass
    except safetensors.SafetensorError as error:
        raise UserError(f"{file}: not a whole safetensors file ({error}); copy or download it again") from None
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    return [
        Entry(file, name, facts["dtype"], tuple(facts["shape"]), *(8 + size + at for at in facts["data_offsets"]))
        for name, facts in header.items()
    ]


def read(entry: Entry) -> np.ndarray:
    """Returns one tensor as it is stored."""
    if entry.dtype not in _DTYPES:
        raise UserError(f"{entry.file}: {entry.name} is stored as {entry.dtype}; known: {', '.join(_DTYPES)}")
    with entry.file.open("rb") as stream:
        raw = np.fromfile(stream, np.uint8, entry.end - entry.begin, offset=entry.begin)
    return raw.view(_DTYPES[entry.dtype]).reshape(entry.shape)


def content_hash(folder: Path, stem: str = "model") -> str:
    """Returns the sha256 of config.json and of all safetensors files, in order of their names.

    Files are read once a process: a digest is remembered under path, size and time of change.
    """
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(files(folder, stem))]:
        facts = file.stat()
        digest.update(f"{file.name} {_digest(file.resolve(), facts.st_size, facts.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=1024)
def _digest(file: Path, size: int, changed_ns: int) -> str:
    del size, changed_ns
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
