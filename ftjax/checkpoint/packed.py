"""A base in few bits as ftjax keeps it in a folder: what its config.json says of it, and its arrays, mapped from disk.

`quantization_config` is `{"quant_method": "ftjax", "version": 1, "leaves": {path: Few}}`. The safetensors files hold
the leaves of our own tree by dotted path, an array of a node each (`blocks.q_proj.codes`), in its layout: so there is
nothing to convert, and the file itself is the memory. Written by `hf_export.save_packed`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ftjax import lookup, tree
from ftjax.checkpoint import shards
from ftjax.errors import UserError, some
from ftjax.quant import convert

METHOD = "ftjax"
VERSION = 1


def is_packed(hf: dict[str, Any]) -> bool:
    """True for a config.json of such a folder."""
    return (hf.get("quantization_config") or {}).get("quant_method") == METHOD


def section(plan: convert.Plan) -> dict[str, Any]:
    """Returns the `quantization_config` of a plan."""
    leaves = {path: few._asdict() for path, few in plan.items()}
    return {"quant_method": METHOD, "version": VERSION, "leaves": leaves}


def plan(folder: Path, hf: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, convert.Few]:
    """Returns which leaves of a folder are in few bits, and how; what this program cannot read is a UserError."""
    stored = hf["quantization_config"]
    where = f"{folder / 'config.json'}: quantization_config"
    if stored.get("version") != VERSION:
        raise UserError(
            f"{where} is of version {stored.get('version')}, and this ftjax reads version {VERSION}; update ftjax, or "
            "quantise the dense checkpoint anew with scripts/quantize.py"
        )
    found = {}
    for path, facts in (stored.get("leaves") or {}).items():
        if path not in shapes:
            raise UserError(f"{where}: the model has no {path!r}.{lookup.suggestion(path, list(shapes))}")
        try:
            found[path] = convert.Few(**facts)
        except TypeError as error:
            raise UserError(f"{where}: {path}: {error}; quantise the dense checkpoint anew") from None
    if not found:
        raise UserError(f"{where}: no leaf is in few bits; quantise the dense checkpoint anew")
    convert.check(found, shapes)
    return found


def agree(folder: Path, stored: convert.Plan, paths: Sequence[str], asked: convert.Few) -> None:
    """Raises a UserError where these leaves are asked for in other bits than the folder holds; group 0: any."""
    for path in paths:
        kept = stored.get(path)
        if kept is None or kept.format != asked.format or asked.group not in (0, kept.group):
            raise UserError(
                f"{folder} holds {path} {f'in {shown(kept)}' if kept else 'dense'}, but {shown(asked)} was asked for; "
                "take the folder as it is (format none), or quantise the dense checkpoint anew"
            )


def shown(few: convert.Few) -> str:
    """Returns "nf4-dq in groups of 64"."""
    return few.format + (f" in groups of {few.group}" if few.group else "")


def read(folder: Path, abstract: Any) -> Any:
    """Returns the base of which `abstract` has the shapes, in arrays that lie in the files.

    A dense leaf of another dtype is cast, and is then a copy. A tensor that is missing, left over, of another shape or
    type is a UserError that names it.
    """
    stored = shards.entries(folder)
    wanted = tree.paths(abstract)
    missing = [name for name in wanted if name not in stored]
    extra = [name for name in stored if name not in wanted]
    if missing or extra:
        what = f"tensors are missing: {some(missing, 5)}" if missing else f"has no place for {some(extra, 5)}"
        raise UserError(f"{folder}: {what}; config.json and the safetensors files do not belong together")
    dense = tree.paths(abstract, tree.stands_for_weight)

    def array(path: tuple[Any, ...], shape: Any) -> np.ndarray:
        name = tree.name(path)
        entry = stored[name]
        found = shards.mapped(entry)
        cast = name in dense and shards.is_float(entry)
        if found.shape != shape.shape or not (found.dtype == shape.dtype or cast):
            raise UserError(
                f"{entry.file}: {name} is {entry.dtype} {found.shape}, but config.json asks for "
                f"{np.dtype(shape.dtype).name} {shape.shape}"
            )
        return found.astype(shape.dtype, copy=False)

    return jax.tree_util.tree_map_with_path(array, abstract)
