"""Hugging Face folders (config.json and safetensors) -> a config and a frozen base, tensor by tensor."""

import dataclasses
from pathlib import Path
import re
from typing import Any

import jax
import numpy as np

from ftjax import lookup, tree
from ftjax import mesh as meshes
from ftjax.checkpoint import shards
from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models import params
from ftjax.models.families import _hf

_DTYPES = ("float32", "bfloat16", "float16")
_IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")  # old Llama checkpoints store what rope_theta says


def formats() -> list[str]:
    """Returns what `quant` may be: "none" and the formats of `ftjax.quant`."""
    return ["none", *(name for name in lookup.modules("ftjax.quant") if name not in ("format", "convert"))]


def read_config(path: str | Path) -> model_config.ModelConfig:
    """Returns the config of a checkpoint without reading its weights."""
    folder = _folder(path)
    file = folder / "config.json"
    hf = shards.read_json(file, what="the config of a Hugging Face checkpoint")
    try:
        return _hf.family(hf.get("model_type")).config_from_hf(hf)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def content_hash(path: str | Path) -> str:
    """Returns the sha256 that stands for config and weights; a resumed run must find the same."""
    return shards.content_hash(_folder(path))


def load(
    path: str | Path, quant: str = "none", dtype: str = "float32", mesh: jax.sharding.Mesh | None = None
) -> tuple[model_config.ModelConfig, Any]:
    """Returns (config, base): the weights in `dtype`, which is also the dtype that the config computes in.

    With a mesh every leaf is laid out on it. The peak of memory is the result and one tensor. A tensor that is
    missing, left over or of another shape is a UserError that names it; so is a config key that is not implemented.
    """
    if quant not in formats():
        raise UserError(f"quant={quant!r} is not a format.{lookup.suggestion(quant, formats())}")
    if quant != "none":
        raise UserError(f"quant={quant!r} cannot be loaded into yet; use 'none'")
    if dtype not in _DTYPES:
        raise UserError(f"dtype={dtype!r} is not a dtype for weights; known: {', '.join(_DTYPES)}")
    config = dataclasses.replace(read_config(path), dtype=dtype)
    folder = _folder(path)
    sources = _sources(folder, config)
    letters = tree.paths(params.axes(config), lambda leaf: isinstance(leaf, tuple))
    leaves = {}
    for name, shape in tree.paths(params.abstract(config, dtype)).items():
        leaf = _aligned(shape.shape, shape.dtype)
        for place, entry in sources[name]:
            tensor = shards.read(entry)
            _row(leaf, place.layer)[...] = tensor.T if place.transpose else tensor
        sharding = None if mesh is None else meshes.weight_sharding(mesh, letters[name], leaf.shape)
        leaves[name] = jax.device_put(leaf, sharding)
    return config, params.from_paths(leaves)


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a Hugging Face checkpoint")
    return folder


def _sources(folder: Path, config: model_config.ModelConfig) -> dict[str, list[tuple[_hf.Place, shards.Entry]]]:
    """Returns which tensors make up each leaf; together they must be exactly what the folder holds."""
    stored = shards.entries(folder)
    places = _hf.family(config.family).names_from_hf(config)
    missing = [name for name in places if name not in stored]
    if missing:
        raise UserError(f"{folder}: tensors are missing: {_some(missing)}; is it a whole {config.family} checkpoint?")
    extra = [name for name in stored if name not in places and not _IGNORED.fullmatch(name)]
    if config.tie_embeddings and "lm_head.weight" in extra:
        if not _same(stored["lm_head.weight"], stored["model.embed_tokens.weight"]):
            raise UserError(f"{folder}: lm_head.weight differs from the embedding, but tie_word_embeddings is true")
        extra.remove("lm_head.weight")
    if extra:
        raise UserError(f"{folder}: a {config.family} model of this config has no place for {_some(extra)}")
    shapes = tree.paths(params.abstract(config, np.float32))
    sources: dict[str, list[tuple[_hf.Place, shards.Entry]]] = {path: [] for path in shapes}
    for name, place in places.items():
        shape = shapes[place.path].shape[0 if place.layer is None else 1 :]
        wanted = shape[::-1] if place.transpose else shape
        if stored[name].shape != wanted:
            raise UserError(f"{folder}: {name} is {stored[name].shape}, but config.json asks for {wanted}")
        sources[place.path].append((place, stored[name]))
    return sources


def _same(first: shards.Entry, second: shards.Entry) -> bool:
    return first.shape == second.shape and np.array_equal(shards.read(first), shards.read(second))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _row(leaf: np.ndarray, layer: int | None) -> np.ndarray:
    return leaf if layer is None else leaf[layer]


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns uninitialised memory on a 64-byte boundary: there jax takes a NumPy array as it is, without a copy."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
