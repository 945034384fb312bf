"""PEFT adapter folders (adapter_config.json, adapter_model.safetensors) <-> our adapter trees, exactly.

A leaf of ours holds all layers, PEFT's modules are single (`peft_layers.py`); names and shapes of their tensors are in
`peft_modules.py`, which says how to add a type, full copies and rows of tokens in `peft_tables.py`, the keys of the
config in `peft_config.py`.
"""

from collections import Counter
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import numpy as safetensors_numpy

from ftjax import tree
from ftjax.adapters import adapter, attach, dora, ia3, lora, vera
from ftjax.checkpoint import folders, peft_config, peft_layers, peft_modules, peft_tables, shards
from ftjax.checkpoint.peft_modules import PREFIX
from ftjax.errors import UserError, some
from ftjax.models import config as model_config

_STEM = "adapter_model"
FILES = ("adapter_config.json", f"{_STEM}.safetensors", "README.md")
SCORE = "score.json"  # beside them: what a run puts there to normalise the scores of its reward model
_TYPES = (lora.LoRA, dora.DoRA, ia3.IA3, vera.VeRA)


class _Part(NamedTuple):
    """A matrix of ours in a module of PEFT's."""

    path: str
    at: tuple[int, ...]
    rows: tuple[int, int] | None  # its outputs, where the module holds several


def _modules(config: model_config.ModelConfig, *, reward: bool) -> dict[str, list[_Part]]:
    """Returns the matrices of every module that PEFT adapts, by its name: linear ones, embedding and head.

    Experts and their router are no modules of their own in transformers, so PEFT has no name for them here.
    """
    found = {}
    for name, place in peft_tables.places(config, reward=reward).items():
        linear = place.transpose and name.endswith(".weight") and place.path != "blocks.router"
        if (linear and place.expert is None) or place.path == "embed_tokens":
            found[name.removesuffix(".weight")] = [_Part(p.path, p.at, p.rows) for p in place.pieces]
    return found


def load(adapter_dir: str | Path, base: Any, config: model_config.ModelConfig) -> Any:
    """Returns the adapters of a PEFT folder as a tree shaped like the base, float32, None where nothing is adapted.

    `score` is the head of a reward model, where task_type is SEQ_CLS, else None.
    Whatever is not supported, missing, left over or misshapen is a UserError that names it.
    """
    folder = _folder(adapter_dir)
    file = folder / FILES[0]
    facts = shards.read_json(file, what="the config of a PEFT adapter")
    try:
        settings = peft_config.read(facts)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    weights = tree.paths(base, attach.is_weight)
    weights["lm_head"] = attach.weight_at(base, "lm_head", weights.get("lm_head"))
    modules = _modules(config, reward=settings.reward)
    chosen = [m for m in modules if settings.targets(m, is_linear=m != "lm_head" and not peft_modules.is_table(m))]
    if not chosen:
        known = sorted({module.rsplit(".", 1)[-1] for module in modules})
        raise UserError(f"{file}: target_modules={facts['target_modules']!r} match nothing; known: {', '.join(known)}")
    _all_hit(file, settings, chosen)
    tied = settings.tying and config.tie_embeddings
    if tied and any(peft_modules.is_table(module) for module in chosen):
        chosen = [module for module in chosen if module != "lm_head"]  # it follows the embedding

    sizes = {module: _size(modules[module], weights) for module in chosen}
    largest = (max(rows for rows, _ in sizes.values()), max(columns for _, columns in sizes.values()))
    reader = peft_modules.Reader(folder, shards.entries(folder, _STEM))
    found: dict[str, dict[tuple[int, ...], Any]] = {}
    for module, size in sizes.items():
        if peft_modules.is_table(module) and settings.kind not in ("LORA", "DORA"):
            raise UserError(f"{file}: {settings.kind} on {module} is not implemented; refused, not ignored")
        node = peft_modules.read(reader, module, settings, *size, largest)
        for part in modules[module]:
            own = node if part.rows is None else peft_layers.of_outputs(node, *part.rows)
            found.setdefault(part.path, {})[part.at] = own
    leaves = {path: peft_layers.stack(parts, tuple(weights[path].shape[:-2])) for path, parts in found.items()}
    if tied and "embed_tokens" in leaves:
        leaves["embed_tokens"] = peft_tables.read_tied(reader, leaves["embed_tokens"])
    saved, rows = (
        peft_tables.read_saved(reader, settings, config, base),
        peft_tables.read_rows(reader, settings, config),
    )
    for more in (saved, rows):
        twice = sorted(leaves.keys() & more.keys())
        if twice:
            raise UserError(f"{file}: {', '.join(twice)} is adapted twice; that is not implemented")
        leaves |= more
    if settings.reward:
        leaves["score"] = peft_tables.read_score(reader, config)
    if getattr(leaves.get("embed_tokens"), "tied", False) and "lm_head" in leaves:
        raise UserError(f"{file}: a head that follows embed_tokens and has an adapter of its own is not implemented")
    _nothing_left(reader, weights, config)
    pick = lambda path, _: leaves.get(tree.name(path))
    return jax.tree_util.tree_map_with_path(pick, base, is_leaf=attach.is_weight)


def _folder(adapter_dir: str | Path) -> Path:
    """Returns the folder, which must be there."""
    folder = Path(adapter_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a PEFT adapter")
    return folder


def is_reward(adapter_dir: str | Path) -> bool:
    """Tells by its config whether a PEFT folder holds the adapter of a reward model."""
    facts = shards.read_json(_folder(adapter_dir) / FILES[0], what="the config of a PEFT adapter")
    return facts.get("task_type") == peft_config.REWARD


def _size(parts: list[_Part], weights: dict[str, Any]) -> tuple[int, int]:
    """Returns (in, out) of a module."""
    shapes = [weights[part.path].shape[-2:] for part in parts]
    return shapes[0][0], sum(shape[1] for shape in shapes)


def _all_hit(file: Path, settings: peft_config.Settings, chosen: list[str]) -> None:
    """Refuses a name in a list of targets that adapts nothing here: PEFT would skip it in silence."""
    if isinstance(settings.target_modules, str):
        return
    idle = [t for t in settings.target_modules if not any(tree.matches(module, (t,)) for module in chosen)]
    if idle:
        raise UserError(f"{file}: target_modules {', '.join(idle)} adapt nothing in this base (absent or no matrix)")


def _nothing_left(reader: peft_modules.Reader, weights: dict[str, Any], config: model_config.ModelConfig) -> None:
    """Refuses tensors that nobody asked for; PEFT's copy of an adapted table is fine where it equals the base's."""
    stored = reader.stored
    for path, module in (("embed_tokens", "model.embed_tokens"), ("lm_head", "lm_head")):
        for name in (f"{PREFIX}{module}.base_layer.weight", f"{PREFIX}{module}.weight"):
            if name not in stored or weights[path] is None:
                continue
            ours = np.asarray(adapter.dense(weights[path]))
            ours = ours.T if path == "lm_head" else ours
            if stored[name].shape == ours.shape and np.array_equal(shards.read(stored[name]).astype(ours.dtype), ours):
                del stored[name]
    if not stored:
        return
    names = sorted(stored)
    layers = [int(found.group(1)) for name in names if (found := re.search(r"\.layers\.(\d+)\.", name))]
    if layers and max(layers) >= config.n_layers:
        raise UserError(
            f"{reader.folder}: the adapter is for another base: it has tensors for layer {max(layers)}, "
            f"and this one has {config.n_layers} layers"
        )
    raise UserError(f"{reader.folder}: tensors that adapter_config.json does not explain: {some(names, 3)}")


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
    PiSSA and OLoRA become plain LoRA of twice the rank on the base as it is. With a `score` it is the adapter of a
    reward model (task_type SEQ_CLS). A folder with content is refused; `replace` lets it take the place of an earlier
    adapter.
    """
    leaves = tree.paths(adapters, is_leaf=adapter.is_adapter)
    score = leaves.pop("score", None)
    if not leaves:
        raise UserError(f"{adapter_dir}: there are no adapters to write; a fully fine-tuned model is exported merged")
    leaves = {path: leaf.exported() if adapter.is_adapter(leaf) else leaf for path, leaf in leaves.items()}
    nodes = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, _TYPES)}
    kinds = sorted({type(node).__name__ for node in nodes.values()})
    if len(kinds) != 1:
        what = "weights" if not kinds else " and ".join(kinds)
        raise UserError(f"{adapter_dir}: {what}, not one type of adapter, so no PEFT format; export it merged")
    if len({node.dropout for node in nodes.values()}) > 1:
        raise UserError(f"{adapter_dir}: PEFT has one dropout for all modules, these adapters have several")
    modules = _modules(config, reward=score is not None)
    try:
        tables = peft_tables.write(leaves, config, score)
    except UserError as error:
        raise UserError(f"{adapter_dir}: {error}") from None
    single = _single(nodes, modules)
    tensors = dict(tables.tensors)
    for module, node in single.items():
        tensors |= peft_modules.write(module, node)
    if kinds == ["VeRA"]:
        tensors |= peft_modules.write_projections(list(single.values()))
    facts = _facts(kinds[0], single, modules, tables, base_name, rslora=rslora, reward=score is not None)
    with folders.written(adapter_dir, replace=(*FILES, SCORE) if replace else ()) as folder:
        (folder / FILES[0]).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        whole = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
        safetensors_numpy.save_file(whole, folder / FILES[1], metadata={"format": "pt"})


def _single(nodes: dict[str, Any], modules: dict[str, list[_Part]]) -> dict[str, Any]:
    """Returns the adapter of every module that has one."""
    split = {path: peft_layers.split(peft_layers.on_host(node)) for path, node in nodes.items()}
    known = {part.path for parts in modules.values() for part in parts}
    strange = sorted(nodes.keys() - known)
    if strange:
        raise UserError(f"{', '.join(strange)}: PEFT has no module for it (experts, routers); export the model merged")
    single = {}
    for module, parts in modules.items():
        own = [split.get(part.path, {}).get(part.at) for part in parts]
        if all(node is None for node in own):
            continue
        widths = [part.rows[1] - part.rows[0] for part in parts if part.rows is not None]
        single[module] = peft_layers.joined(own, widths, module) if widths else own[0]
    return single


def _facts(
    kind: str,
    single: dict[str, Any],
    modules: dict[str, list[_Part]],
    tables: peft_tables.Written,
    base_name: str | None,
    *,
    rslora: bool,
    reward: bool,
) -> dict[str, Any]:
    """Returns what adapter_config.json says."""
    common: dict[str, Any] = {
        "target_modules": _named(single, modules),
        "modules_to_save": tables.saved,
        "base_name": base_name,
        "reward": reward,
    }
    first = next(iter(single.values()))
    if kind not in ("LoRA", "DoRA") and (tables.tokens or tables.tying):
        raise UserError(f"{kind} with rows of tokens, or with a tied copy of the embedding, has no PEFT form")
    if kind == "IA3":
        inputs = {module: node for module, node in single.items() if node.feedforward}
        return peft_config.write_ia3(feedforward=_named(inputs, modules), **common)
    if kind == "VeRA":
        return peft_config.write_vera(rank=first.lambda_d.shape[0], dropout=first.dropout, **common)
    return peft_config.write_lora(
        **_patterns(single, rslora=rslora),
        dropout=first.dropout,
        rslora=rslora,
        dora=kind == "DoRA",
        tokens=tables.tokens,
        tying=tables.tying,
        **common,
    )


def _named(single: dict[str, Any], modules: dict[str, list[_Part]]) -> list[str]:
    """Returns names for the modules: of a projection where all of its layers are there, else full ones."""
    kind = lambda module: module.rsplit(".", 1)[-1]
    partly = {kind(module) for module in modules if module not in single}
    return sorted({module if kind(module) in partly else kind(module) for module in single})


def _patterns(single: dict[str, Any], *, rslora: bool) -> dict[str, Any]:
    """Returns rank, alpha and the patterns for what differs; keys are the shortest ends of names that say enough."""
    ranks = {module: one.a.shape[1] for module, one in single.items()}
    alphas = {module: _alpha(one.scale, ranks[module], rslora=rslora) for module, one in single.items()}
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
