"""Tokenised data on disk: one .npz a key in tokens/ of the cache folder. Anything damaged is made again.

Written beside its place and renamed, so a reader never sees half a file; zip's checksums find a flipped bit.
"""

from collections.abc import Collection, Mapping
import contextlib
import hashlib
import json
import os
from pathlib import Path
import tempfile
from typing import Any
import warnings
import zipfile
import zlib

import numpy as np

Entry = tuple[dict[str, np.ndarray], dict[str, Any]]  # arrays by name, and facts that JSON can hold


def root() -> Path:
    """Returns the folder of everything that ftjax may make again: $FTJAX_CACHE, or ~/.cache/ftjax."""
    named = os.environ.get("FTJAX_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "ftjax"


def folder() -> Path:
    """Returns the folder of tokenised data."""
    return root() / "tokens"


def key(**parts: object) -> str:
    """Returns the sha256 of everything that the encoding depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def read(name: str, arrays: Collection[str]) -> Entry | None:
    """Returns the arrays and facts of a key, or None when it is absent or damaged or lacks one of the arrays."""
    path = folder() / f"{name}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            found = {part: stored[part] for part in arrays}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return (found, about) if about.get("key") == name else None


def write(name: str, *, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Stores an entry. A cache that cannot be written (full disk, read-only home) costs time, not the run: it warns."""
    facts = json.dumps({"key": name, **about}).encode()
    temporary = None
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder(), prefix=f".{name}.", delete=False) as stream:
            temporary = stream.name
            np.savez(stream, allow_pickle=False, **arrays, about=np.frombuffer(facts, np.uint8))
        os.replace(temporary, folder() / f"{name}.npz")
    except OSError as bad:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        warnings.warn(f"tokenised data is not cached in {folder()}: {bad.strerror}; set FTJAX_CACHE", stacklevel=2)
