"""A dense base -> a Hugging Face folder that AutoModelForCausalLM and AutoTokenizer load."""

import dataclasses
import json
from pathlib import Path
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import numpy as safetensors_numpy

from ftjax import tree
from ftjax.checkpoint import folders, hf_import, shards
from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models.families import _hf

# What goes with the weights as it is: tokenizer, chat template, generation settings, licence.
_COPIED = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "spiece.model"),
    *("chat_template*", "additional_chat_templates", "generation_config.json", "LICENSE*", "NOTICE*"),
)


class _Tensor(NamedTuple):
    """A tensor of the checkpoint to be, not yet made."""

    name: str
    leaf: Any
    place: _hf.Place
    nbytes: int


def save(
    out_dir: str | Path,
    dense: Any,
    config: model_config.ModelConfig,
    source_dir: str | Path,
    dtype: str | None = None,
    *,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes a merged model: weights in `dtype` (None: as they are), config and tokenizer files of `source_dir`.

    Above `max_shard_bytes` the weights are split into shards with an index. The folder appears whole or not at all;
    one with content is refused. `config` must be what the source's config.json says.
    """
    source = Path(source_dir).expanduser()
    described = dataclasses.replace(
        hf_import.read_config(source), dtype=config.dtype, remat=config.remat, unroll=config.unroll
    )
    if described != config:
        differing = [
            f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(described, f.name)
        ]
        raise UserError(f"{source}: config.json describes another model than the one to write: {', '.join(differing)}")
    tensors = _tensors(dense, config, dtype)
    kept = dtype or str(np.dtype(dense.embed_tokens.dtype))
    with folders.written(out_dir) as folder:
        for pattern in _COPIED:
            for file in sorted(source.glob(pattern)):
                shutil.copytree(file, folder / file.name) if file.is_dir() else shutil.copyfile(
                    file, folder / file.name
                )
        _write_config(source, folder, kept)
        _write_shards(folder, _grouped(tensors, max_shard_bytes), dtype)


def _tensors(dense: Any, config: model_config.ModelConfig, dtype: str | None) -> list[_Tensor]:
    leaves = tree.paths(dense)
    places = _hf.family(config.family).names_from_hf(config)
    surplus = sorted(leaves.keys() - {place.path for place in places.values()})
    lacking = sorted({place.path for place in places.values()} - leaves.keys())
    if surplus or lacking:
        raise UserError(f"not a dense {config.family} model: {', '.join(surplus + lacking)}; merge adapters first")
    tensors = []
    for name, place in places.items():
        leaf = leaves[place.path]
        size = int(np.prod(leaf.shape if place.layer is None else leaf.shape[1:]))
        tensors.append(_Tensor(name, leaf, place, size * np.dtype(dtype or leaf.dtype).itemsize))
    return tensors


def _grouped(tensors: list[_Tensor], limit: int) -> list[list[_Tensor]]:
    """Returns the shards, filled in order; a tensor above the limit has one of its own."""
    groups: list[list[_Tensor]] = [[]]
    room = limit
    for tensor in tensors:
        if groups[-1] and tensor.nbytes > room:
            groups.append([])
            room = limit
        groups[-1].append(tensor)
        room -= tensor.nbytes
    return groups


def _write_shards(folder: Path, groups: list[list[_Tensor]], dtype: str | None) -> None:
    total = len(groups)
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        file = "model.safetensors" if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors"
        weight_map |= {tensor.name: file for tensor in group}
        arrays = {tensor.name: _array(tensor, dtype) for tensor in group}
        safetensors_numpy.save_file(arrays, folder / file, metadata={"format": "pt"})
    if total > 1:
        size = sum(tensor.nbytes for group in groups for tensor in group)
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)


def _array(tensor: _Tensor, dtype: str | None) -> np.ndarray:
    """Returns one tensor as the file holds it; only this layer of the leaf leaves the device."""
    leaf, place = tensor.leaf, tensor.place
    part = np.asarray(leaf if place.layer is None else jax.lax.dynamic_index_in_dim(leaf, place.layer, keepdims=False))
    part = part.T if place.transpose else part
    return np.ascontiguousarray(part.astype(dtype or part.dtype, copy=False))


def _write_config(source: Path, folder: Path, dtype: str) -> None:
    """Writes the source's config.json with the dtype of the new weights, under the keys of old and new readers."""
    facts = shards.read_json(source / "config.json", what="the config of a Hugging Face checkpoint")
    facts["dtype"] = dtype
    if "torch_dtype" in facts:
        facts["torch_dtype"] = dtype
    _write_json(folder / "config.json", facts)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
