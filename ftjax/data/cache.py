"""Tokenised data on disk: one .npz a key in tokens/ of the cache folder. Anything damaged is made again.

Written beside its place and renamed, so a reader never sees half a file; zip's checksums find a flipped bit.
"""

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

Entry = tuple[np.ndarray, np.ndarray, np.ndarray, list[str], dict[str, Any]]


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


def read(name: str) -> Entry | None:
    """Returns ids, mask, offsets, wheres and summary of a key, or None when it is absent or damaged."""
    path = folder() / f"{name}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            ids, mask, offsets = stored["ids"], stored["mask"], stored["offsets"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    whole = about.get("key") == name and len(offsets) == len(about["wheres"]) + 1
    if not whole or len(ids) != len(mask) or offsets[-1] != len(ids):
        return None
    return ids, mask, offsets, about["wheres"], about["summary"]


def write(
    name: str,
    *,
    ids: np.ndarray,
    mask: np.ndarray,
    offsets: np.ndarray,
    wheres: list[str],
    summary: dict[str, Any],
) -> None:
    """Stores an entry. A cache that cannot be written (full disk, read-only home) costs time, not the run: it warns."""
    about = json.dumps({"key": name, "wheres": wheres, "summary": summary}).encode()
    temporary = None
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder(), prefix=f".{name}.", delete=False) as stream:
            temporary = stream.name
            np.savez(
                stream,
                ids=ids.astype(np.int32),
                mask=mask.astype(np.uint8),
                offsets=offsets.astype(np.int64),
                about=np.frombuffer(about, np.uint8),
            )
        os.replace(temporary, folder() / f"{name}.npz")
    except OSError as bad:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        warnings.warn(f"tokenised data is not cached in {folder()}: {bad.strerror}; set FTJAX_CACHE", stacklevel=2)
