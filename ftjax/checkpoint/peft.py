"""PEFT adapter folders (adapter_config.json, adapter_model.safetensors) <-> our adapter trees, exactly.

A leaf of ours holds all layers, PEFT's modules are single. Where layers differ (layers_to_transform, a pattern for
some layers), the leaf is padded with zeros up to the largest rank, which adds nothing and gets no gradient, and
unequal scales are folded into B; `save` cuts the zeros off again and names the layers that are left.
To add an adapter type: a branch in `_read_module` and `_write_module` (tensor names), a key in `peft_config`.
"""

from collections import Counter
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors_numpy

from ftjax import tree
from ftjax.adapters import attach, lora
from ftjax.checkpoint import folders, peft_config, shards
from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models.families import _hf

_PREFIX = "base_model.model."
_STEM = "adapter_model"
FILES = ("adapter_config.json", f"{_STEM}.safetensors", "README.md")


class _Low(NamedTuple):
    """A LoRA of one module."""

    a: np.ndarray  # [in, R]
    b: np.ndarray  # [R, out]
    scale: float


def _modules(config: model_config.ModelConfig) -> dict[str, tuple[str, int | None]]:
    """Returns the leaf and layer of every linear module of the base, by PEFT's name of it."""
    places = _hf.family(config.family).names_from_hf(config)
    return {
        name.removesuffix(".weight"): (place.path, place.layer)
        for name, place in places.items()
        if place.transpose and name.endswith(".weight")
    }


def load(adapter_dir: str | Path, base: Any, config: model_config.ModelConfig) -> Any:
    """Returns the adapters of a PEFT folder as a tree shaped like the base, float32, None where nothing is adapted.

    Whatever is not supported, missing, left over or misshapen is a UserError that names it.
    """
    folder = Path(adapter_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a PEFT adapter")
    file = folder / FILES[0]
    facts = shards.read_json(file, what="the config of a PEFT adapter")
    try:
        settings = peft_config.read(facts)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    weights = {path: leaf for path, leaf in tree.paths(base, attach.is_weight).items() if leaf is not None}
    modules = _modules(config)
    chosen = [module for module in modules if settings.targets(module, is_head=module == "lm_head")]
    if not chosen:
        known = sorted({module.rsplit(".", 1)[-1] for module in modules})
        raise UserError(f"{file}: target_modules={facts['target_modules']!r} match nothing; known: {', '.join(known)}")
    _all_hit(file, settings, chosen)

    stored = shards.entries(folder, _STEM)
    found: dict[str, dict[int | None, _Low]] = {}
    for module in chosen:
        path, layer = modules[module]
        rows, columns = weights[path].shape[-2:]
        found.setdefault(path, {})[layer] = _read_module(folder, stored, module, settings, rows, columns)
    _nothing_left(folder, stored, weights)
    leaves = {path: _stack(by_layer, weights[path].shape, settings.dropout) for path, by_layer in found.items()}
    pick = lambda path, _: leaves.get(tree.name(path))
    return jax.tree_util.tree_map_with_path(pick, base, is_leaf=attach.is_weight)


def _all_hit(file: Path, settings: peft_config.Settings, chosen: list[str]) -> None:
    """Refuses a name in a list of targets that adapts nothing here: PEFT would skip it in silence."""
    if isinstance(settings.target_modules, str):
        return
    idle = [t for t in settings.target_modules if not any(tree.matches(module, (t,)) for module in chosen)]
    if idle:
        raise UserError(
            f"{file}: target_modules {', '.join(idle)} adapt nothing in this base (tied, absent or no matrix)"
        )


def _read_module(
    folder: Path,
    stored: dict[str, shards.Entry],
    module: str,
    settings: peft_config.Settings,
    rows: int,
    columns: int,
) -> _Low:
    """Returns the LoRA of one module [rows, columns] and takes its tensors out of `stored`."""
    rank, scale = settings.scale(module)
    tensors: dict[str, np.ndarray] = {}
    for letter, wanted in (("A", (rank, rows)), ("B", (columns, rank))):
        name = f"{_PREFIX}{module}.lora_{letter}.weight"
        entry = stored.pop(name, None)
        if entry is None:
            raise UserError(f"{folder}: tensor {name} is missing, though adapter_config.json targets {module}")
        if entry.shape != wanted:
            raise UserError(f"{folder}: {name} is {entry.shape}, not {wanted}: {_why(entry.shape, wanted, letter)}")
        tensors[letter] = np.ascontiguousarray(shards.read(entry).astype(np.float32).T)
    return _Low(tensors["A"], tensors["B"], scale)


def _why(shape: tuple[int, ...], wanted: tuple[int, ...], letter: str) -> str:
    """Returns the likely reason in words: another rank, or a base of another width."""
    rank_axis = 0 if letter == "A" else 1
    if len(shape) == 2 and shape[1 - rank_axis] == wanted[1 - rank_axis]:
        return f"its rank is {shape[rank_axis]}, adapter_config.json says {wanted[rank_axis]}"
    theirs, ours = shape[1 - rank_axis] if len(shape) == 2 else shape, wanted[1 - rank_axis]
    side = "reads" if letter == "A" else "writes"
    return f"the adapter is for another base, where this module {side} {theirs} numbers; in this one it {side} {ours}"


def _nothing_left(folder: Path, stored: dict[str, shards.Entry], weights: dict[str, Any]) -> None:
    """Refuses tensors that nobody asked for; PEFT's copy of an adapted head is fine where it equals the base's."""
    copy = stored.get(f"{_PREFIX}lm_head.base_layer.weight")
    if copy is not None and isinstance(weights.get("lm_head"), jax.Array | np.ndarray):
        head = np.asarray(weights["lm_head"]).T
        if copy.shape == head.shape and np.array_equal(shards.read(copy).astype(head.dtype), head):
            del stored[copy.name]
    if stored:
        names = sorted(stored)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UserError(f"{folder}: tensors that adapter_config.json does not explain: {', '.join(names[:3])}{more}")


def _stack(by_layer: dict[int | None, _Low], shape: tuple[int, ...], dropout: float) -> lora.LoRA:
    """Returns one leaf of all layers, padded with zeros where a layer has a smaller rank or no adapter."""
    if None in by_layer:
        one = by_layer[None]
        return lora.LoRA(a=jnp.asarray(one.a), b=jnp.asarray(one.b), scale=one.scale, dropout=dropout)
    n_layers, rows, columns = shape
    rank = max(one.a.shape[1] for one in by_layer.values())
    scale = Counter(one.scale for one in by_layer.values()).most_common(1)[0][0]
    a, b = np.zeros((n_layers, rows, rank), np.float32), np.zeros((n_layers, rank, columns), np.float32)
    for layer, one in by_layer.items():
        own = one.a.shape[1]
        a[layer, :, :own] = one.a
        b[layer, :own] = one.b if one.scale == scale else one.b * np.float32(one.scale / scale)
    return lora.LoRA(a=jnp.asarray(a), b=jnp.asarray(b), scale=scale, dropout=dropout)


def save(
    adapter_dir: str | Path,
    adapters: Any,
    config: model_config.ModelConfig,
    base_name: str | None,
    *,
    rslora: bool = False,
    replace: bool = False,
) -> None:
    """Writes an adapter folder that PEFT and vLLM load, with PEFT's tensor names, shapes and config keys, in float32.

    `rslora` says that the scales mean alpha / sqrt(r): the numbers are the same, the config then says use_rslora.
    A folder with content is refused; `replace` lets it take the place of an earlier adapter.
    """
    is_lora = lambda leaf: isinstance(leaf, lora.LoRA)
    leaves = tree.paths(adapters, is_leaf=is_lora)
    if not leaves:
        raise UserError(f"{adapter_dir}: there are no adapters to write; a fully fine-tuned model is exported merged")
    other = sorted(path for path, leaf in leaves.items() if not is_lora(leaf))
    if other:
        raise UserError(
            f"{adapter_dir}: {', '.join(other[:3])}: not LoRA, so not PEFT's format; export the model merged"
        )
    if len({leaf.dropout for leaf in leaves.values()}) > 1:
        raise UserError(f"{adapter_dir}: PEFT has one lora_dropout for all modules, these adapters have several")
    named: dict[str, dict[int | None, str]] = {}
    for module, (path, layer) in _modules(config).items():
        named.setdefault(path, {})[layer] = module
    lows: dict[str, _Low] = {}
    targets: list[str] = []
    for path, leaf in leaves.items():
        split = _split(leaf)
        lows |= {named[path][layer]: one for layer, one in split.items()}
        whole = len(split) == len(named[path])
        targets += [path.rsplit(".", 1)[-1]] if whole else [named[path][layer] for layer in split]
    tensors = {}
    for module, one in lows.items():
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(one.a.T)
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(one.b.T)
    facts = peft_config.write(
        **_patterns(lows, rslora=rslora),
        dropout=next(iter(leaves.values())).dropout,
        rslora=rslora,
        target_modules=targets,
        base_name=base_name,
    )
    with folders.written(adapter_dir, replace=FILES if replace else ()) as folder:
        (folder / FILES[0]).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        safetensors_numpy.save_file(tensors, folder / FILES[1], metadata={"format": "pt"})


def _split(leaf: lora.LoRA) -> dict[int | None, _Low]:
    """Returns the LoRA of each layer without the zeros that `_stack` padded; a layer of zeros has none.

    Only exact zeros in A and B alike count, on the last ranks: training never makes them. All zeros stay as they are.
    """
    a, b = np.asarray(leaf.a, np.float32), np.asarray(leaf.b, np.float32)
    if a.ndim == 2:
        return {None: _Low(a, b, leaf.scale)}
    used = (a != 0).any(axis=1) | (b != 0).any(axis=2)  # [L, R]
    ranks = np.where(used.any(axis=1), a.shape[2] - np.argmax(used[:, ::-1], axis=1), 0)
    if not ranks.any():
        ranks[:] = a.shape[2]
    return {layer: _Low(a[layer, :, :r], b[layer, :r], leaf.scale) for layer, r in enumerate(ranks.tolist()) if r}


def _patterns(lows: dict[str, _Low], *, rslora: bool) -> dict[str, Any]:
    """Returns rank, alpha and the patterns for what differs; keys are the shortest ends of names that say enough."""
    ranks = {module: one.a.shape[1] for module, one in lows.items()}
    alphas = {module: _alpha(one.scale, ranks[module], rslora=rslora) for module, one in lows.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return {
        "rank": rank,
        "alpha": alpha,
        "rank_pattern": _exceptions(ranks, rank),
        "alpha_pattern": _exceptions(alphas, alpha),
    }


def _alpha(scale: float, rank: int, *, rslora: bool) -> float:
    """Returns the alpha that gives this scale, as the whole number that it was where it was one."""
    alpha = scale * rank**0.5 if rslora else scale * rank
    return float(round(alpha)) if abs(alpha - round(alpha)) < 1e-9 * max(1.0, abs(alpha)) else alpha


def _exceptions(values: dict[str, Any], default: Any) -> dict[str, Any]:
    """Returns a pattern for every value that is not the default: by projection where its layers agree, else by name."""
    found: dict[str, Any] = {}
    kinds = {module.rsplit(".", 1)[-1] for module in values}
    for kind in sorted(kinds):
        own = {module: value for module, value in values.items() if module.rsplit(".", 1)[-1] == kind}
        if len(set(own.values())) == 1:
            own = {kind: next(iter(own.values()))}
        found |= {re.escape(module): value for module, value in own.items() if value != default}
    return found
