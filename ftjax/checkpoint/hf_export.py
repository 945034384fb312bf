"""A model -> a Hugging Face folder that transformers' Auto classes load, or one in few bits for ftjax.

Adapters are merged and weights in few bits made dense layer by layer, while they are written: beside the model itself
one tensor is in memory.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import json
from pathlib import Path
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import tree
from ftjax.adapters import attach, merge
from ftjax.checkpoint import folders, gguf, hf_import, packed, reward_folder, shards
from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models.families import _hf
from ftjax.quant import convert
from ftjax.quant import format as quant_format

# What goes with the weights as it is: tokenizer, chat template, generation settings, licence.
_TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "spiece.model"),
    *("chat_template*", "additional_chat_templates"),
)
_GENERATION = "generation_config.json"
_COPIED = (*_TOKENIZER, _GENERATION, "LICENSE*", "NOTICE*")
_TEXTS = 1_000_000  # bytes: config, index, card and the like, generously


def save(
    out_dir: str | Path,
    dense: Any,
    config: model_config.ModelConfig,
    source_dir: str | Path,
    dtype: str | None = None,
    *,
    max_shard_bytes: int = 5_000_000_000,
    stop_ids: Sequence[int] = (),
    template: str | None = None,
    card: str | None = None,
    reward: reward_folder.Facts | None = None,
) -> None:
    """Writes a whole model: weights in `dtype` (None: as they are), config and tokenizer files of `source_dir`.

    `dense` may be a base with adapters attached, or in few bits: the file holds W' of the merge (in float32, then in
    `dtype`), never codes. `stop_ids` are added to the end tokens of generation_config.json; `template` takes the place
    of the tokenizer's chat template; `card` is the README. A model with a `score` is written as a reward model, without
    the head of its language model; `reward` says what else that needs. Above `max_shard_bytes` the weights are split
    into shards with an index. The folder is read back before it gets its name, and appears whole or not at all; one
    with content, or a disk without room, is refused. `config` must be what the source's config.json says.
    """
    source = gguf.folder_of(source_dir)
    described = dataclasses.replace(
        hf_import.read_config(source), dtype=config.dtype, remat=config.remat, unroll=config.unroll
    )
    if described != config:
        differing = [
            f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(described, f.name)
        ]
        raise UserError(f"{source}: config.json describes another model than the one to write: {', '.join(differing)}")
    if (dense.score is not None) != (reward is not None):
        raise ValueError("save: a reward model needs `reward`, and no other model has it")
    tensors = _tensors(dense, config, dtype)
    kept = dtype or str(tensors[0].dtype)
    copied = [file for file in _files(source, _COPIED) if reward is None or file.name != _GENERATION]
    folders.check_room(out_dir, sum(tensor.nbytes for tensor in tensors) + _size(copied) + _TEXTS)
    with folders.written(out_dir) as folder:
        _copy(copied, folder)
        tied = all(tensor.name != "lm_head.weight" for tensor in tensors)
        _write_config(source, folder, kept, tied=tied, reward=reward)
        if reward is None:
            _write_stops(source, folder, stop_ids)
        if template is not None:
            _write_template(folder, template)
        if reward is not None:
            reward_folder.write(folder, reward)
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
        _write_shards(folder, _grouped(tensors, max_shard_bytes))
        _check(folder, tensors, out_dir)


def save_packed(
    out_dir: str | Path,
    base: Any,
    plan: convert.Plan,
    source_dir: str | Path,
    *,
    max_shard_bytes: int,
    texts: Mapping[str, str],
) -> None:
    """Writes a base in few bits that `hf_import.load` maps from the disk, with the tokenizer files of `source_dir`.

    The arrays go out as they are, so `base` is as `hf_import.load` gave it for this plan; `texts` are more files by
    name (card, measurements). Like `save`, the folder is read back and appears whole or not at all.
    """
    source = gguf.folder_of(source_dir)
    tensors = [
        shards.Planned(name, np.dtype(leaf.dtype), leaf.shape, functools.partial(np.asarray, leaf))
        for name, leaf in tree.paths(base).items()
    ]
    tensors.sort(key=lambda tensor: tensor.nbytes % shards.ALIGNMENT != 0)  # after an odd one nothing is aligned
    dense = [leaf.dtype for leaf in tree.paths(base, tree.stands_for_weight).values() if hasattr(leaf, "dtype")]
    copied = _files(source, _COPIED)
    folders.check_room(out_dir, sum(tensor.nbytes for tensor in tensors) + _size(copied) + _TEXTS)
    with folders.written(out_dir) as folder:
        _copy(copied, folder)
        _write_config(source, folder, str(dense[0]), tied=base.lm_head is None, section=packed.section(plan))
        _write_shards(folder, _grouped(tensors, max_shard_bytes))
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        _check(folder, tensors, out_dir)


def copy_tokenizer(source_dir: str | Path, folder: Path, template: str) -> None:
    """Writes the tokenizer of a model folder into another, with `template` as its chat template."""
    _copy(_files(gguf.folder_of(source_dir), _TOKENIZER), folder)
    _write_template(folder, template)


def _tensors(dense: Any, config: model_config.ModelConfig, dtype: str | None) -> list[shards.Planned]:
    leaves = tree.paths(dense, _is_weight)
    score = leaves.pop("score", None)
    if score is not None:
        leaves.pop("lm_head", None)
    if "lm_head" in leaves:  # also where the source has none: an adapter has changed one of embedding and head
        config = dataclasses.replace(config, tie_embeddings=False)
    places = _hf.family(config.family).names_from_hf(config)
    if score is not None:
        places = {name: place for name, place in places.items() if place.path != "lm_head"}
        places |= {"score.weight": _hf.Place("score", None, True)}
        leaves |= {"score": score}
    wanted = {piece.path for place in places.values() for piece in place.pieces}
    differing = sorted(leaves.keys() ^ wanted)
    if differing:
        raise UserError(f"not a whole {config.family} model: {', '.join(differing)}")
    tensors = []
    for name, place in places.items():
        parts = [(leaves[piece.path], piece) for piece in place.pieces]
        kind = np.dtype(dtype or _dtype(parts[0][0]))
        shapes = [_shape(leaf, piece) for leaf, piece in parts]
        shape = (sum(one[0] for one in shapes), *shapes[0][1:])
        tensors.append(shards.Planned(name, kind, shape, functools.partial(_array, parts, kind)))
    return tensors


def _dtype(leaf: Any) -> Any:
    weight = leaf.frozen if isinstance(leaf, attach.Adapted) else leaf
    return "float32" if quant_format.is_quantized(weight) else weight.dtype


def _shape(leaf: Any, place: _hf.Place) -> tuple[int, ...]:
    """Returns the shape of what the file holds of a leaf."""
    weight = leaf.frozen if isinstance(leaf, attach.Adapted) else leaf
    shape = tuple(weight.shape[len(place.at) :])
    return shape[::-1] if place.transpose else shape


def _is_weight(leaf: Any) -> bool:
    return isinstance(leaf, attach.Adapted) or quant_format.is_quantized(leaf)


def _grouped(tensors: list[shards.Planned], limit: int) -> list[list[shards.Planned]]:
    """Returns the shards, filled in order; a tensor above the limit has one of its own."""
    groups: list[list[shards.Planned]] = [[]]
    room = limit
    for tensor in tensors:
        if groups[-1] and tensor.nbytes > room:
            groups.append([])
            room = limit
        groups[-1].append(tensor)
        room -= tensor.nbytes
    return groups


def _write_shards(folder: Path, groups: list[list[shards.Planned]]) -> None:
    total = len(groups)
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        file = "model.safetensors" if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors"
        weight_map |= {tensor.name: file for tensor in group}
        shards.write(folder / file, group)
    if total > 1:
        size = sum(tensor.nbytes for group in groups for tensor in group)
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)


def _array(parts: list[tuple[Any, _hf.Place]], dtype: np.dtype) -> np.ndarray:
    """Returns one tensor as the file holds it; only these layers of the leaves are merged, and leave the device.

    Several parts are one tensor of which each has its own outputs (Phi-3's qkv_proj).
    """
    made = [_dense(_row(leaf, place.at)) for leaf, place in parts]
    made = [array.T if place.transpose else array for array, (_, place) in zip(made, parts, strict=True)]
    whole = made[0] if len(made) == 1 else np.concatenate(made)
    if whole.dtype == dtype and whole.flags.c_contiguous:
        return whole
    out = np.empty(whole.shape, dtype)
    shards.copy(out, whole)
    return out


def _row(leaf: Any, index: tuple[int, ...]) -> Any:
    """Returns one layer (and expert) of a leaf, as a scan over layers would slice it, adapter and codes included."""
    take = lambda x, i: x[i] if isinstance(x, np.ndarray) else jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
    for at in index:
        leaf = jax.tree.map(functools.partial(take, i=at), leaf)
    return leaf


def _dense(weight: Any) -> np.ndarray:
    """Returns a weight as it is stored; merged, or out of few bits, in float32."""
    if not _is_weight(weight):
        return np.asarray(weight)
    if isinstance(weight, attach.Adapted):  # a merge ends in the dtype of W, so that is float32 here
        weight = weight.replace(frozen=jnp.asarray(merge.merge(weight.frozen, None), jnp.float32))
    return np.asarray(merge.merge(weight, None))


def _check(folder: Path, tensors: list[shards.Planned], out_dir: str | Path) -> None:
    """Reads back what was written: every name, dtype and shape, and the bytes of the last tensor."""
    found = shards.entries(folder)
    wrong = [t.name for t in tensors if t.name not in found or found[t.name].shape != t.shape]
    last = tensors[-1]
    if not wrong and shards.raw(found[last.name]).data != shards.bytes_of(last.make()):
        wrong = [last.name]
    if wrong:
        raise UserError(f"{out_dir}: {', '.join(wrong[:3])} read back is not what was written; is the disk sound?")


def _files(source: Path, patterns: Iterable[str]) -> list[Path]:
    return [file for pattern in patterns for file in sorted(source.glob(pattern))]


def _size(files: list[Path]) -> int:
    inside = [child for file in files for child in ([file] if file.is_file() else file.rglob("*")) if child.is_file()]
    return sum(file.stat().st_size for file in inside)


def _copy(files: list[Path], folder: Path) -> None:
    for file in files:
        if file.is_dir():
            shutil.copytree(file, folder / file.name)
        else:
            shutil.copyfile(file, folder / file.name)


def _write_stops(source: Path, folder: Path, stop_ids: Sequence[int]) -> None:
    """Adds end tokens to generation_config.json; without one, transformers would take those of config.json."""
    if not stop_ids:
        return
    file = folder / _GENERATION
    if file.is_file():
        facts = shards.read_json(file, what="the generation config of a model")
    else:
        config = shards.read_json(source / "config.json", what="the config of a Hugging Face checkpoint")
        known = ("bos_token_id", "eos_token_id", "pad_token_id")
        facts = {key: config[key] for key in known if config.get(key) is not None}
    own = facts.get("eos_token_id")
    ends = list(dict.fromkeys((*(own if isinstance(own, list) else [] if own is None else [own]), *stop_ids)))
    _write_json(file, facts | {"eos_token_id": ends[0] if len(ends) == 1 else ends})


def _write_template(folder: Path, template: str) -> None:
    """Writes the chat template where new readers look for it, and where old ones do if the source had one there."""
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    file = folder / "tokenizer_config.json"
    facts = shards.read_json(file, what="the config of a tokenizer") if file.is_file() else {}
    if facts.get("chat_template"):
        _write_json(file, facts | {"chat_template": template})


def _write_config(
    source: Path,
    folder: Path,
    dtype: str,
    *,
    tied: bool,
    section: Mapping[str, Any] | None = None,
    reward: reward_folder.Facts | None = None,
) -> None:
    """Writes the source's config.json with what is new: dtype, bits as `section` says, a reward model's head."""
    facts = shards.read_json(source / "config.json", what="the config of a Hugging Face checkpoint")
    facts.pop("quantization_config", None)
    if section is not None:
        facts["quantization_config"] = section
    facts["dtype"] = dtype  # the key of new readers; old ones know the next
    if "torch_dtype" in facts:
        facts["torch_dtype"] = dtype
    if not tied and facts.get("tie_word_embeddings", True):
        facts["tie_word_embeddings"] = False
    if reward is not None:
        facts = reward_folder.config(facts, reward)
    _write_json(folder / "config.json", facts)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
