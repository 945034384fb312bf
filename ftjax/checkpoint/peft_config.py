"""adapter_config.json: what PEFT's keys mean, which of them are implemented, and what is refused by name.

PEFT itself loads a file without r (and takes 8), ignores unknown keys with a warning, and so on; none of that here.
"""

import dataclasses
import re
from typing import Any

from ftjax import tree
from ftjax.errors import UserError

# Bookkeeping, and settings of switches that are themselves checked (init_lora_weights, use_qalora).
_HARMLESS = frozenset(
    {"auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "inference_mode", "loftq_config"}
    | {"lora_ga_config", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config"}
    | {"init_ia3_weights", "init_weights"}
)
_COMMON = frozenset({"exclude_modules", "fan_in_fan_out", "modules_to_save", "peft_type", "target_modules"})
_COMMON |= {"task_type"}
_LAYERS = frozenset({"bias", "layers_pattern", "layers_to_transform", "r"})
_READ = {
    "LORA": _COMMON
    | _LAYERS
    | {"alpha_pattern", "ensure_weight_tying", "init_lora_weights", "lora_alpha", "lora_dropout", "rank_pattern"}
    | {"trainable_token_indices", "use_dora", "use_rslora"},
    "IA3": _COMMON | {"feedforward_modules"},
    "VERA": _COMMON | _LAYERS | {"d_initial", "projection_prng_key", "save_projection", "vera_dropout"},
}
_NEEDED = {
    "LORA": ("r", "lora_alpha", "target_modules"),
    "IA3": ("target_modules", "feedforward_modules"),
    "VERA": ("r", "target_modules"),
}
# Ways to draw A and B; any other changes the base as well (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA).
_PLAIN_INIT = (True, False, None, "gaussian", "eva", "orthogonal")
REWARD = "SEQ_CLS"  # the task of an adapter with a reward head
# What PEFT adds to modules_to_save under that task, whatever the model calls its head; decoders call it score.
_HEADS = ("classifier", "score")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What adapter_config.json asks for, once everything else in it is known to be neutral."""

    kind: str  # LORA | DORA | IA3 | VERA
    reward: bool  # has a reward head, and no head of a language model
    rank: int  # 0 for IA3
    alpha: float
    dropout: float
    rslora: bool
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    target_modules: str | tuple[str, ...]
    exclude_modules: str | tuple[str, ...] | None
    layers: frozenset[int] | None
    layers_pattern: tuple[str, ...]
    modules_to_save: tuple[str, ...]  # without the reward head
    tokens: dict[str, tuple[int, ...]]  # rows that train, by the name of the module
    tying: bool
    feedforward: str | tuple[str, ...]
    projection_key: int
    save_projection: bool

    def targets(self, module: str, *, is_linear: bool) -> bool:
        """True where PEFT would adapt this module of the base (`model.layers.0.self_attn.q_proj`).

        `is_linear` is False for head and embedding, which "all-linear" leaves out.
        """
        if self.exclude_modules is not None and tree.matches(module, self.exclude_modules):
            return False
        if self.target_modules == "all-linear":
            return is_linear
        if isinstance(self.target_modules, str):
            return tree.matches(module, self.target_modules)
        if module in self.target_modules:
            return True
        return tree.matches(module, self.target_modules) and (self.layers is None or self._layer(module) in self.layers)

    def _layer(self, module: str) -> int | None:
        """Returns the layer number as PEFT finds it: behind `layers_pattern`, else the first number in the name."""
        for pattern in self.layers_pattern or (r"[^.]*",):
            found = re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module)
            if found:
                return int(found.group(1))
        return None

    def scale(self, module: str) -> tuple[int, float]:
        """Returns (rank, scale) of a module: alpha / r, or alpha / sqrt(r) under rsLoRA, after the patterns."""
        rank = tree.first_match(module, self.rank_pattern, self.rank)
        alpha = tree.first_match(module, self.alpha_pattern, self.alpha)
        return rank, alpha / rank**0.5 if self.rslora else alpha / rank

    def is_feedforward(self, module: str) -> bool:
        """True where IA3 scales the inputs; PEFT compares the ends of names as they are, without a dot."""
        if isinstance(self.feedforward, str):
            return re.fullmatch(self.feedforward, module) is not None
        return module.endswith(self.feedforward)


def read(facts: dict[str, Any]) -> Settings:
    """Returns the settings; a key that is missing, not implemented or unknown is a UserError that names it."""
    kind = facts.get("peft_type")
    if kind not in _READ:
        raise UserError(f"peft_type={kind!r} is not implemented; known: {', '.join(map(repr, _READ))}")
    for key in _NEEDED[kind]:
        if facts.get(key) is None:
            raise UserError(f"key {key!r} is missing; an adapter of type {kind} cannot be run without it")
    for key, known in (("bias", ("none",)), ("task_type", ("CAUSAL_LM", REWARD)), ("fan_in_fan_out", (False,))):
        if facts.get(key) is not None and facts[key] not in known:
            raise UserError(f"{key}={facts[key]!r} is not implemented; known: {', '.join(map(repr, known))}")
    reward = facts.get("task_type") == REWARD
    saved = _listed("modules_to_save", facts.get("modules_to_save"))
    if facts.get("init_lora_weights") not in _PLAIN_INIT:
        raise UserError(
            f"init_lora_weights={facts['init_lora_weights']!r} also changes the base; save the adapter as plain LoRA "
            "(PEFT: path_initial_model_for_weight_conversion)"
        )
    for key, value in facts.items():
        if key not in _READ[kind] and key not in _HARMLESS and value:
            raise UserError(f"{key}={value!r} is not implemented; refused, not ignored")
    layers = facts.get("layers_to_transform")
    layers = layers if isinstance(layers, list) else None if layers is None else [layers]
    dropout = "vera_dropout" if kind == "VERA" else "lora_dropout"
    settings = Settings(
        kind="DORA" if facts.get("use_dora") else kind,
        reward=reward,
        rank=0 if kind == "IA3" else _whole("r", facts["r"]),
        alpha=_number("lora_alpha", facts["lora_alpha"]) if kind == "LORA" else 0.0,
        dropout=_number(dropout, facts.get(dropout) or 0.0),
        rslora=bool(facts.get("use_rslora")),
        rank_pattern={k: _whole(f"rank_pattern {k}", v) for k, v in (facts.get("rank_pattern") or {}).items()},
        alpha_pattern={k: _number(f"alpha_pattern {k}", v) for k, v in (facts.get("alpha_pattern") or {}).items()},
        target_modules=_modules("target_modules", facts["target_modules"]),
        exclude_modules=_modules("exclude_modules", facts["exclude_modules"]) if facts.get("exclude_modules") else None,
        layers=frozenset(layers) if layers else None,
        layers_pattern=_listed("layers_pattern", facts.get("layers_pattern")),
        modules_to_save=tuple(name for name in saved if not (reward and name in _HEADS)),
        tokens=_tokens(facts.get("trainable_token_indices")),
        tying=bool(facts.get("ensure_weight_tying")) and not reward,  # there the embedding is tied to nothing
        feedforward=_modules("feedforward_modules", facts.get("feedforward_modules") or []),
        projection_key=int(facts.get("projection_prng_key") or 0),
        save_projection=facts.get("save_projection", True) is not False,
    )
    if isinstance(settings.target_modules, str) and settings.layers is not None:
        raise UserError("layers_to_transform goes with a list of target_modules, not with a regex")
    return settings


def _modules(key: str, value: Any) -> Any:
    """Returns a regex as it is, a list of names as a tuple."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UserError(f"{key}={value!r} is neither a string nor a list of strings")


def _listed(key: str, value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else _modules(key, value or [])


def _tokens(value: Any) -> dict[str, tuple[int, ...]]:
    """Returns the trained rows of a module by its name; a list means the embedding."""
    value = {} if value is None else {"embed_tokens": value} if isinstance(value, list) else value
    whole = lambda ids: isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
    if not isinstance(value, dict) or not all(whole(ids) and ids for ids in value.values()):
        raise UserError(f"trainable_token_indices={value!r} is neither a list of token ids nor a dict of such lists")
    return {name: tuple(ids) for name, ids in value.items()}


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{key}={value!r} is not a whole number >= 1")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key}={value!r} is not a number")
    return float(value)


def _written(kind: str, base_name: str | None, reward: bool, targets: list[str], saved: list[str]) -> dict[str, Any]:
    """Returns the keys that every kind has."""
    return {
        "auto_mapping": None,
        "base_model_name_or_path": base_name,
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": sorted(saved) or None,
        "peft_type": kind,
        "revision": None,
        "target_modules": sorted(targets),
        "task_type": REWARD if reward else "CAUSAL_LM",
    }


def write_lora(
    *,
    rank: int,
    alpha: float,
    dropout: float,
    rslora: bool,
    dora: bool,
    rank_pattern: dict[str, int],
    alpha_pattern: dict[str, float],
    target_modules: list[str],
    modules_to_save: list[str],
    tokens: dict[str, tuple[int, ...]],
    tying: bool,
    base_name: str | None,
    reward: bool,
) -> dict[str, Any]:
    """Returns the adapter_config.json of a LoRA or DoRA that PEFT >= 0.4 reads, and vLLM where it has the type."""
    alone = list(tokens) == ["embed_tokens"]
    rows = {name: list(ids) for name, ids in tokens.items()}
    rare: dict[str, Any] = {"trainable_token_indices": rows["embed_tokens"] if alone else rows} if tokens else {}
    rare |= {"ensure_weight_tying": True} if tying else {}
    return _written("LORA", base_name, reward, target_modules, modules_to_save) | rare | {
        "alpha_pattern": alpha_pattern,
        "bias": "none",
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_bias": False,
        "lora_dropout": dropout,
        "r": rank,
        "rank_pattern": rank_pattern,
        "use_dora": dora,
        "use_rslora": rslora,
    }  # fmt: skip


def write_ia3(
    *,
    target_modules: list[str],
    feedforward: list[str],
    modules_to_save: list[str],
    base_name: str | None,
    reward: bool,
) -> dict[str, Any]:
    """Returns the adapter_config.json of an IA3."""
    return _written("IA3", base_name, reward, target_modules, modules_to_save) | {
        "feedforward_modules": sorted(feedforward),
        "init_ia3_weights": True,
    }


def write_vera(
    *,
    rank: int,
    dropout: float,
    target_modules: list[str],
    modules_to_save: list[str],
    base_name: str | None,
    reward: bool,
) -> dict[str, Any]:
    """Returns the adapter_config.json of a VeRA whose matrices are saved with it."""
    common = _written("VERA", base_name, reward, target_modules, modules_to_save)
    del common["exclude_modules"]  # which PEFT's VeRA does not have
    return common | {
        "bias": "none",
        "d_initial": 0.1,  # of no consequence: the vectors are in the file, as the matrices are
        "init_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "projection_prng_key": 0,
        "r": rank,
        "save_projection": True,
        "vera_dropout": dropout,
    }
