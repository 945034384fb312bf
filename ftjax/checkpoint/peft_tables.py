"""What a PEFT folder holds beside adapters of matrices: full copies (modules_to_save), rows of tokens, a reward head.

Where embedding and head are one weight, PEFT's rules hold: a copy of the embedding serves the lookup alone, and one of
`lm_head` the head alone, unless ensure_weight_tying, which stores both; rows of tokens serve both. A reward model
(task_type SEQ_CLS) has `score` for a head, so there the embedding is tied to nothing.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ftjax import tree
from ftjax.adapters import adapter, lora, tables
from ftjax.checkpoint import peft_config
from ftjax.checkpoint.peft_modules import PREFIX, Reader
from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models.families import _hf

_ROWS = "token_adapter.trainable_tokens_delta"
_SCORE = "score.weight"


def places(config: model_config.ModelConfig, *, reward: bool) -> dict[str, _hf.Place]:
    """Returns the places of a family's tensors, and of a head that is the embedding under the head's own name.

    A reward model has no such head.
    """
    found = _hf.family(config.family).names_from_hf(config)
    if reward:
        return {name: place for name, place in found.items() if place.path != "lm_head"}
    if config.tie_embeddings:
        found = found | {"lm_head.weight": _hf.Place("lm_head", None, True)}
    return found


def read_saved(reader: Reader, settings: peft_config.Settings, config: model_config.ModelConfig, base: Any) -> Any:
    """Returns the full copies by path, and takes their tensors."""
    named = places(config, reward=settings.reward)
    wanted = {name: place for name, place in named.items() if _module(name).endswith(settings.modules_to_save)}
    tied = config.tie_embeddings and settings.tying
    idle = [t for t in settings.modules_to_save if not any(_module(name).endswith(t) for name in named)]
    if idle:
        raise UserError(f"{reader.folder}: modules_to_save {', '.join(idle)} are not modules of this base")
    found: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    shapes = {path: tuple(leaf.shape) for path, leaf in tree.paths(base, _is_whole).items()}
    if config.tie_embeddings:
        shapes["lm_head"] = shapes["embed_tokens"][::-1]
    for name, place in wanted.items():
        if place.parts or place.expert is not None:
            raise UserError(f"{reader.folder}: modules_to_save {_module(name)} is not implemented")
        explain = "the adapter is for another base, or its vocabulary was changed"
        if not (tied and place.path == "lm_head"):
            value = reader.take_as(name, place.stored_shape(shapes), "has it in modules_to_save", explain)
            found.setdefault(place.path, {})[place.at] = value.T if place.transpose else value
    if tied and any(place.path in tables.SAVED for place in wanted.values()):
        if "embed_tokens" not in found:
            raise UserError(f"{reader.folder}: ensure_weight_tying with lm_head in modules_to_save needs embed_tokens")
        _same(reader, "lm_head.weight", found["embed_tokens"][()])
    leaves = {path: _whole(reader, path, parts, shapes[path]) for path, parts in found.items()}
    if config.tie_embeddings and not tied and "embed_tokens" in leaves and "lm_head" not in leaves:
        leaves["embed_tokens"] = tables.Copy(weight=leaves["embed_tokens"])
    return leaves


def _is_whole(leaf: Any) -> bool:
    return hasattr(leaf, "dequantize")


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _whole(reader: Reader, path: str, parts: dict[tuple[int, ...], np.ndarray], shape: tuple[int, ...]) -> Any:
    if () in parts:
        return jnp.asarray(parts[()])
    if len(parts) < shape[0]:
        raise UserError(f"{reader.folder}: modules_to_save has {path} in {len(parts)} of {shape[0]} layers; needs all")
    return jnp.asarray(np.stack([parts[(layer,)] for layer in range(shape[0])]))


def _same(reader: Reader, name: str, wanted: np.ndarray) -> None:
    """Takes the second copy of a tied tensor, where there is one; it must equal the first."""
    if reader.has(name) and not np.array_equal(reader.take(name, "ties it"), wanted):
        raise UserError(f"{reader.folder}: {PREFIX}{name} differs from what it is tied to (ensure_weight_tying)")


def read_tied(reader: Reader, node: Any) -> Any:
    """Returns the LoRA of an embedding as one that the head sees, and takes the head's copies of its factors."""
    node = tables.tie(node)
    _same(reader, "lm_head.lora_A.weight", np.asarray(node.b))
    _same(reader, "lm_head.lora_B.weight", np.asarray(node.a))
    return node


def read_score(reader: Reader, config: model_config.ModelConfig) -> Any:
    """Returns the head of a reward model [D, 1], and takes its tensor."""

    def explain(shape: tuple[int, ...]) -> str:
        if len(shape) == 2 and shape[0] != 1:
            return f"it tells {shape[0]} classes apart (num_labels); a reward model has one score"
        return f"a reward head from another base, whose hidden size is {shape[-1]}; this one's is {config.d_model}"

    wanted = (1, config.d_model)
    return jnp.asarray(reader.take_as(_SCORE, wanted, "says task_type SEQ_CLS", explain).T)


def read_rows(reader: Reader, settings: peft_config.Settings, config: model_config.ModelConfig) -> dict[str, Any]:
    """Returns the rows of tokens by path, and takes their tensors."""
    by_path: dict[str, tuple[int, ...]] = {}
    named = places(config, reward=settings.reward)
    modules = {place.path: _module(name) for name, place in named.items() if place.path in tables.SAVED}
    for key, indices in settings.tokens.items():
        path = next((path for path, module in modules.items() if tree.matches(module, (key,))), None)
        if path is None:
            known = ", ".join(path for path in tables.SAVED if path in modules)
            raise UserError(f"{reader.folder}: trainable_token_indices name {key}; known: {known}")
        tables.check_tokens(indices, config.vocab_size)
        by_path[path] = indices
    both = config.tie_embeddings and "embed_tokens" in by_path
    both = both and by_path.get("lm_head", by_path["embed_tokens"]) == by_path["embed_tokens"]
    if both:
        by_path.pop("lm_head", None)
    leaves = {}
    for path, indices in by_path.items():
        explain = "the adapter is for another base, or another number of tokens"
        name, wanted = f"{modules[path]}.{_ROWS}", (len(indices), config.d_model)
        values = reader.take_as(name, wanted, "has trainable_token_indices", explain)
        leaves[path] = tables.TokenRows(
            values=jnp.asarray(values), indices=indices, on_head=path == "lm_head", tied=both
        )
    return leaves


class Written:
    """What `write` found: tensors, and what adapter_config.json must say of them."""

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self.saved: list[str] = []
        self.tokens: dict[str, tuple[int, ...]] = {}
        self.tying = False


def write(adapters: dict[str, Any], config: model_config.ModelConfig, score: Any) -> Written:
    """Returns the tensors of the copies, of the rows and of a tied head among the leaves of an adapter tree.

    With a `score` [D, 1] they are those of a reward model.
    """
    reward = score is not None
    out, named = Written(), places(config, reward=reward)
    if reward:
        on_head = [path for path in adapters if path == "lm_head"]
        if on_head:
            raise UserError("an adapter on lm_head beside a reward head has no PEFT form: no score depends on it")
        if tuple(score.shape) != (config.d_model, 1):
            raise UserError(
                f"score is {tuple(score.shape)}, not {(config.d_model, 1)}: a reward head from another base"
            )
    copies = {p: getattr(leaf, "weight", leaf) for p, leaf in adapters.items() if _is_copy(leaf)}
    table = adapters.get("embed_tokens")
    alone = config.tie_embeddings and "lm_head" not in adapters and not reward
    out.tying = alone and ("embed_tokens" in copies and not isinstance(table, tables.Copy))
    for name, place in named.items():
        for piece in place.pieces:
            if piece.path in copies and (piece is not place or place.expert is not None):
                raise UserError(f"{piece.path} trains as a whole, which has no PEFT form here; export the model merged")
        if place.path in copies:
            value = np.asarray(copies[place.path], np.float32)[place.at]
            out.tensors[f"{PREFIX}{name}"] = value.T if place.transpose else value
            out.saved.append(_module(name).rsplit(".", 1)[-1])
    partly = [n for n, p in named.items() if _module(n).rsplit(".", 1)[-1] in out.saved and p.path not in copies]
    if partly:
        raise UserError(f"PEFT saves modules whole, and {partly[0]} does not train; export the model merged")
    out.saved = sorted(set(out.saved))
    if out.tying:
        out.tensors[f"{PREFIX}lm_head.weight"] = np.asarray(copies["embed_tokens"], np.float32)
    if isinstance(table, lora.LoRA) and table.tied and not reward:
        if not alone:
            raise UserError("a LoRA of the embedding that the head sees, and a head of its own, have no PEFT form")
        out.tying = True
        out.tensors[f"{PREFIX}lm_head.lora_A.weight"] = np.asarray(table.b, np.float32)
        out.tensors[f"{PREFIX}lm_head.lora_B.weight"] = np.asarray(table.a, np.float32)
    rows = {path: leaf for path, leaf in adapters.items() if isinstance(leaf, tables.TokenRows)}
    tied = config.tie_embeddings and not reward
    if "embed_tokens" in rows and tied and rows["embed_tokens"].tied != ("lm_head" not in rows):
        raise UserError("rows of tokens of the lookup alone have no PEFT form, where the head is the same weight")
    for name, place in named.items():
        if place.path in rows:
            out.tokens[_module(name).rsplit(".", 1)[-1]] = rows[place.path].indices
            out.tensors[f"{PREFIX}{_module(name)}.{_ROWS}"] = np.asarray(rows[place.path].values, np.float32)
    if reward:
        out.saved.append(_module(_SCORE))
        out.tensors[f"{PREFIX}{_SCORE}"] = np.asarray(score, np.float32).T
    return out


def _is_copy(leaf: Any) -> bool:
    return isinstance(leaf, tables.Copy) or not adapter.is_adapter(leaf)
