"""Hugging Face folders (config.json and safetensors) and GGUF files -> a config and a frozen base, tensor by tensor."""

from collections.abc import Collection, Iterator
import dataclasses
from pathlib import Path
import re
from typing import Any

import jax
import numpy as np

from ftjax import lookup, tree
from ftjax import mesh as meshes
from ftjax.checkpoint import bnb, gguf, packed, shards
from ftjax.data import gguf_file
from ftjax.errors import UserError, some
from ftjax.models import config as model_config
from ftjax.models import params
from ftjax.models.families import _hf
from ftjax.quant import convert

_DTYPES = ("float32", "bfloat16", "float16")
_IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")  # old Llama checkpoints store what rope_theta says


QUANTISED = r"blocks\.\w+_proj"  # the leaves that `quant` puts into few bits, unless told otherwise


def formats() -> list[str]:
    """Returns what `quant` may be: "none" and the formats of `ftjax.quant`."""
    return ["none", *convert.formats()]


def read_config(path: str | Path) -> model_config.ModelConfig:
    """Returns the config of a checkpoint without reading its weights."""
    folder = _folder(path)
    if folder.is_file():
        return gguf.read_config(folder)
    hf = _json(folder)
    try:
        known = packed.is_packed(hf) or bnb.is_bnb(hf)
        dense = {key: value for key, value in hf.items() if key != "quantization_config"} if known else hf
        return _hf.family(hf.get("model_type")).config_from_hf(dense)
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from None


def _json(folder: Path) -> dict[str, Any]:
    return shards.read_json(folder / "config.json", what="the config of a Hugging Face checkpoint")


def is_packed(path: str | Path) -> bool:
    """True for a folder that holds its base in the bits of ftjax."""
    folder = _folder(path)
    return folder.is_dir() and packed.is_packed(_json(folder))


def plan(path: str | Path, quant: str, *, leaves: str, group: int) -> convert.Plan:
    """Returns which leaves of a base will be in few bits, and how; without reading a weight.

    `quant` says so of a dense checkpoint. A folder that is in few bits, ours or bitsandbytes', says it itself, and may
    be asked for nothing else ("none" asks for nothing); that and whatever cannot be held so is a UserError.
    """
    if quant not in formats():
        raise UserError(f"quant={quant!r} is not a format.{lookup.suggestion(quant, formats())}")
    shapes = {name: leaf.shape for name, leaf in tree.paths(params.abstract(read_config(path), "float32")).items()}
    folder = _folder(path)
    if not is_packed(path):
        of_bnb = folder.is_dir() and bnb.is_bnb(_json(folder))
        held = _in_bnb(folder, _sources(folder, read_config(folder))) if of_bnb else {}
        if held and quant != "none":
            raise _already(folder, next(iter(held)))
        return held or convert.plan(quant, shapes, leaves, group)
    stored = packed.plan(folder, _json(folder), shapes)
    if quant != "none":
        packed.agree(folder, stored, convert.chosen(shapes, leaves), convert.Few(quant, group))
    return stored


def content_hash(path: str | Path) -> str:
    """Returns the sha256 that stands for config and weights; a resumed run must find the same."""
    folder = _folder(path)
    return gguf.content_hash(folder) if folder.is_file() else shards.content_hash(folder)


def stored_dtype(path: str | Path) -> str:
    """Returns the dtype of a checkpoint's weights (`shards.dtype`); those of a GGUF file are read as float32."""
    folder = _folder(path)
    return shards.dtype(folder) if folder.is_dir() else "float32"


def load(
    path: str | Path,
    quant: str | convert.Plan = "none",
    dtype: str = "float32",
    mesh: jax.sharding.Mesh | None = None,
    *,
    leaves: str = QUANTISED,
    group: int = 0,
) -> tuple[model_config.ModelConfig, Any]:
    """Returns (config, base): the weights in `dtype`, which is also the dtype that the config computes in.

    `quant` puts the matrices that the regex `leaves` chooses into few bits, in groups of `group` (0: the format's own
    size), or is a plan, leaf by leaf; matrices that the checkpoint holds in bitsandbytes' four bits stay as they are.
    The peak of memory is the result and one tensor. A folder in the bits of ftjax is mapped: its arrays are the file.
    With a mesh every leaf is laid out on it. A tensor that is missing, left over, of another shape or not to be
    quantised is a UserError that names it; so is a config key that is not implemented.
    """
    found = plan(path, quant, leaves=leaves, group=group) if isinstance(quant, str) else quant
    if dtype not in _DTYPES:
        raise UserError(f"dtype={dtype!r} is not a dtype for weights; known: {', '.join(_DTYPES)}")
    config = dataclasses.replace(read_config(path), dtype=dtype)
    letters = tree.paths(params.axes(config), lambda leaf: isinstance(leaf, tuple))
    abstract = params.abstract(config, dtype)
    if is_packed(path):
        whole = packed.read(_folder(path), convert.abstract_tree(abstract, found))
        held = tree.paths(whole, tree.stands_for_weight)
        return config, params.from_paths({name: _on_device(leaf, letters[name], mesh) for name, leaf in held.items()})
    folder = _folder(path)
    sources = _sources(folder, config)
    there = _in_bnb(folder, sources)
    made = {}
    for name, shape in tree.paths(abstract).items():
        if name in there:
            if found.get(name, there[name]) != there[name]:
                raise _already(folder, name)
            leaf = _in_four_bits(shape.shape, sources[name], there[name], folder)
        elif name in found:
            leaf = _quantised(shape.shape, sources[name], found[name])
        else:
            leaf = _aligned(shape.shape, shape.dtype)
            for place, entry in sources[name]:
                _write(leaf[place.at], place, entry)
        made[name] = _on_device(leaf, letters[name], mesh)
    return config, params.from_paths(made)


def matrices(path: str | Path, leaves: Collection[str]) -> Iterator[tuple[str, tuple[int, ...], np.ndarray]]:
    """Yields (leaf, row in it, matrix [in, out]) of a dense checkpoint for these leaves, a tensor at a time."""
    sources = _sources(_folder(path), read_config(path))
    for name in leaves:
        for place, entry in sources[name]:
            yield name, place.at, _tensor(place, entry)


def _in_bnb(folder: Path, sources: dict[str, list[tuple[_hf.Place, Any]]]) -> convert.Plan:
    """Returns the leaves that a checkpoint holds in bitsandbytes' four bits, and how; most hold none."""
    held: dict[str, convert.Few] = {}
    for name, pieces in sources.items():
        kinds = {entry.few if isinstance(entry, bnb.Packed) else None for _, entry in pieces}
        if len(kinds) > 1:
            raise UserError(f"{folder}: {name} is in bitsandbytes' four bits in some layers and not so in others")
        few = kinds.pop()
        if few is not None:
            held[name] = few
    return held


def _already(folder: Path, name: str) -> UserError:
    return UserError(f"{folder}: {name} is in bitsandbytes' four bits; load it with quant='none'")


def _in_four_bits(shape: tuple[int, ...], pieces: list[tuple[_hf.Place, Any]], few: convert.Few, folder: Path) -> Any:
    """Returns a leaf with the codes that the checkpoint has."""
    leaf = convert.empty(convert.abstract(shape, few))
    for place, entry in pieces:
        node = bnb.read(entry, f"{folder}: {entry.name}")
        own = slice(*place.rows or (None,))  # a tensor of several leaves is cut along its outputs
        convert.place(leaf, place.at, jax.tree.map(lambda array, own=own: array[..., own], node))
    return leaf


def _quantised(shape: tuple[int, ...], pieces: list[tuple[_hf.Place, Any]], few: convert.Few) -> Any:
    """Returns a leaf in few bits, quantised matrix by matrix as they are read."""
    leaf = convert.empty(convert.abstract(shape, few))
    for place, entry in pieces:
        where = f"{entry.file}: {entry.name}"
        convert.place(leaf, place.at, convert.matrix(_tensor(place, entry), few, where=where))
    return leaf


def _tensor(place: _hf.Place, entry: Any) -> np.ndarray:
    """Returns a tensor of the checkpoint as our leaf holds it."""
    tensor = gguf.read(entry) if isinstance(entry, gguf.Entry) else shards.read(entry)
    tensor = tensor if place.rows is None else tensor[slice(*place.rows)]
    return tensor.T if place.transpose else tensor


def _write(out: np.ndarray, place: _hf.Place, entry: Any) -> None:
    """Writes a tensor of the checkpoint to where our leaf holds it."""
    if isinstance(entry, gguf.Entry):
        shards.copy(out, _tensor(place, entry))
    else:
        shards.fill(out.T if place.transpose else out, entry, place.rows[0] if place.rows else 0)


def _on_device(leaf: Any, letters: tuple[str, ...], mesh: jax.sharding.Mesh | None) -> Any:
    if mesh is None:
        return jax.tree.map(jax.device_put, leaf)
    return jax.tree.map(meshes.put, leaf, meshes.leaf_shardings(mesh, letters, leaf))


def _folder(path: str | Path) -> Path:
    single = gguf_file.find(path)
    if single is not None:
        return single
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a Hugging Face checkpoint, or a .gguf file")
    return folder


def _sources(folder: Path, config: model_config.ModelConfig) -> dict[str, list[tuple[_hf.Place, Any]]]:
    """Returns which tensors make up each leaf; together they must be exactly what the folder holds."""
    stored: dict[str, Any]
    if folder.is_file():
        stored = gguf.entries(folder, config)
    else:
        dense, packed = bnb.split(shards.entries(folder))
        stored = dense | packed
    places = _hf.family(config.family).names_from_hf(config)
    missing = [name for name in places if name not in stored]
    if missing:
        raise UserError(f"{folder}: tensors are missing: {some(missing, 5)}; is it a whole {config.family} checkpoint?")
    extra = [name for name in stored if name not in places and not _IGNORED.fullmatch(name)]
    if config.tie_embeddings and "lm_head.weight" in extra:
        if not _same(stored["lm_head.weight"], stored["model.embed_tokens.weight"]):
            raise UserError(f"{folder}: lm_head.weight differs from the embedding, but tie_word_embeddings is true")
        extra.remove("lm_head.weight")
    if extra:
        raise UserError(f"{folder}: a {config.family} model of this config has no place for {some(extra, 5)}")
    shapes = {path: leaf.shape for path, leaf in tree.paths(params.abstract(config, np.float32)).items()}
    sources: dict[str, list[tuple[_hf.Place, Any]]] = {path: [] for path in shapes}
    for name, place in places.items():
        wanted = place.stored_shape(shapes)
        if stored[name].shape != wanted:
            raise UserError(f"{folder}: {name} is {stored[name].shape}, but config.json asks for {wanted}")
        for piece in place.pieces:
            sources[piece.path].append((piece, stored[name]))
    return sources


def _same(first: Any, second: Any) -> bool:
    return first.shape == second.shape and np.array_equal(shards.read(first), shards.read(second))


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns uninitialised memory on a 64-byte boundary: there jax takes a NumPy array as it is, without a copy."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
