"""Safetensors files of a folder, one or many, read tensor by tensor.

The library judges whether a file is whole; offsets come from its header, so that the peak is the one tensor that is
being read: what is to be converted is not mapped into memory, where every page that was touched counts besides the
result. What is used as it is stored is (`mapped`). Files are written tensor by tensor for the same reason: the
library's own writer takes all arrays of a file at once.
"""

from collections.abc import Callable, Sequence
import functools
import hashlib
import json
import math
from pathlib import Path
import re
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from ftjax.errors import UserError

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_CODES = {"U8": np.uint8, "I8": np.int8, "F8_E4M3": ml_dtypes.float8_e4m3fn}  # no weights without their scales

ALIGNMENT = 64  # bytes at which jax takes an array on a CPU without a copy
_BLOCK = 128  # numbers a side, so that both blocks stay in the cache
_SLAB = 2**25  # bytes of a tensor in memory at a time, where it goes straight to its place


class Entry(NamedTuple):
    """A tensor in a file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int


class Planned(NamedTuple):
    """A tensor of a file to be, not yet made."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


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
    beside = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.safetensors")
    left_out = sorted(path.name for path in folder.iterdir() if beside.fullmatch(path.name) and path.name not in named)
    if left_out:
        raise UserError(
            f"{index}: does not name {', '.join(left_out[:3])}, which {folder} holds; copy the index of these shards"
        )
    missing = [name for name in named if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{index}: names {', '.join(missing)}, which {folder} does not have; copy the missing shards")
    return [folder / name for name in named]


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index, what="the index of a sharded checkpoint").get("weight_map")
    if not isinstance(found, dict) or not found:
        raise UserError(f"{index}: no weight_map; it should be the index of a sharded checkpoint")
    for name, file in found.items():
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise UserError(f"{index}: {name} is in {file!r}, which is no name of a file; repair the index")
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


def dtype(folder: Path, stem: str = "model") -> str:
    """Returns the narrowest of float32, bfloat16 and float16 that holds every tensor of a folder as it is stored.

    float64 counts as float32. Tensors of whole numbers (codes of few bits) do not count.
    """
    kinds = {np.dtype(_DTYPES[entry.dtype]).name for entry in entries(folder, stem).values() if entry.dtype in _DTYPES}
    return kinds.pop() if len(kinds) == 1 and kinds != {"float64"} else "float32"


def read(entry: Entry) -> np.ndarray:
    """Returns one tensor as it is stored."""
    kind = _kind(entry)
    return raw(entry).view(kind).reshape(entry.shape)


def _kind(entry: Entry) -> np.dtype:
    if entry.dtype not in _DTYPES:
        raise UserError(f"{entry.file}: {entry.name} is stored as {entry.dtype}; known: {', '.join(_DTYPES)}")
    return np.dtype(_DTYPES[entry.dtype])


def fill(out: np.ndarray, entry: Entry, first: int = 0) -> None:
    """Writes the rows of one tensor from `first` on into an array of their shape (a transposed view will do).

    As many as `out` has, cast to its dtype. The tensor is never in memory as a whole: an untied head is the largest of
    a checkpoint, and would stand there twice.
    """
    kind = _kind(entry)
    row = math.prod(entry.shape[1:]) * kind.itemsize
    step = max(1, _SLAB // max(row, 1))
    with entry.file.open("rb") as stream:
        stream.seek(entry.begin + first * row)
        for at in range(0, len(out), step):
            rows = out[at : at + step]
            part = np.fromfile(stream, np.uint8, len(rows) * row)
            copy(rows, part.view(kind).reshape(rows.shape))


def raw(entry: Entry) -> np.ndarray:
    """Returns the bytes of one tensor, uint8 [bytes], whatever they mean."""
    with entry.file.open("rb") as stream:
        return np.fromfile(stream, np.uint8, entry.end - entry.begin, offset=entry.begin)


def is_float(entry: Entry) -> bool:
    """True for a tensor that means its numbers, not codes."""
    return entry.dtype in _DTYPES


def mapped(entry: Entry) -> np.ndarray:
    """Returns one tensor, codes too, as memory that is the file: read only when it is used, and nowhere copied.

    jax on a CPU takes it as it is where it begins at a multiple of 64 bytes. The file must stay as it is.
    """
    known = _DTYPES | _CODES
    if entry.dtype not in known:
        raise UserError(f"{entry.file}: {entry.name} is stored as {entry.dtype}; known: {', '.join(known)}")
    if not math.prod(entry.shape):
        return np.empty(entry.shape, known[entry.dtype])
    return np.memmap(entry.file, known[entry.dtype], "r", entry.begin, entry.shape).view(np.ndarray)


def write(file: Path, tensors: Sequence[Planned]) -> None:
    """Writes a safetensors file; each tensor is made when its turn comes, and let go.

    The format: the length of the header (8 bytes, little-endian), the header as JSON padded with spaces, then the
    tensors without gaps. They begin at a multiple of 64 bytes, and go on so until one that is no multiple itself.
    """
    kinds = {np.dtype(kind): name for name, kind in (_DTYPES | _CODES).items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        offsets = [at, at + tensor.nbytes]
        header[tensor.name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            array = tensor.make()
            assert (array.dtype, array.shape) == (tensor.dtype, tensor.shape), f"{tensor.name} is not what was planned"
            stream.write(bytes_of(array))


def copy(out: np.ndarray, array: np.ndarray) -> None:
    """Writes an array into another of its shape, cast to its dtype.

    Block by block where one is stored transposed: NumPy walks one of the two across its rows, and misses the cache at
    every number. On a 5632 x 2048 bfloat16 tensor that is 0.87 for 0.42 GB/s into float32, 0.55 for 0.28 as it is.
    """
    if out.dtype == array.dtype and out.dtype.itemsize == 2:
        out, array = out.view(np.uint16), array.view(np.uint16)  # bfloat16 is no type of NumPy's own, and slower
    if out.ndim != 2 or out.flags.c_contiguous == array.flags.c_contiguous:
        out[...] = array
        return
    for i in range(0, out.shape[0], _BLOCK):
        for j in range(0, out.shape[1], _BLOCK):
            out[i : i + _BLOCK, j : j + _BLOCK] = array[i : i + _BLOCK, j : j + _BLOCK].astype(out.dtype, copy=False)


def bytes_of(array: np.ndarray) -> memoryview:
    """Returns the bytes of an array in the order of a file; no copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


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
