"""adapter_config.json: what PEFT's keys mean, which of them are implemented, and what is refused by name.

PEFT itself loads a file without r (and takes 8), ignores unknown keys with a warning, and so on; none of that here.
"""

import dataclasses
import re
from typing import Any

from ftjax import tree
from ftjax.errors import UserError

# Bookkeeping, and settings of switches that are themselves checked (init_lora_weights, use_qalora, modules_to_save).
_HARMLESS = frozenset(
    {"auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "inference_mode"}
    | {"loftq_config", "lora_ga_config", "megatron_core", "peft_version", "qalora_group_size", "revision"}
    | {"runtime_config"}
)
_READ = frozenset(
    {"alpha_pattern", "bias", "exclude_modules", "fan_in_fan_out", "init_lora_weights", "layers_pattern"}
    | {"layers_to_transform", "lora_alpha", "lora_dropout", "peft_type", "r", "rank_pattern", "target_modules"}
    | {"task_type", "use_rslora"}
)
# Ways to draw A and B; any other changes the base as well (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA).
_PLAIN_INIT = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What adapter_config.json asks for, once everything else in it is known to be neutral."""

    rank: int
    alpha: float
    dropout: float
    rslora: bool
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    target_modules: str | tuple[str, ...]
    exclude_modules: str | tuple[str, ...] | None
    layers: frozenset[int] | None
    layers_pattern: tuple[str, ...]

    def targets(self, module: str, *, is_head: bool) -> bool:
        """True where PEFT would adapt this linear module of the base (`model.layers.0.self_attn.q_proj`)."""
        if self.exclude_modules is not None and tree.matches(module, self.exclude_modules):
            return False
        if self.target_modules == "all-linear":
            return not is_head
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


def read(facts: dict[str, Any]) -> Settings:
    """Returns the settings; a key that is missing, not implemented or unknown is a UserError that names it."""
    kind = facts.get("peft_type")
    if kind != "LORA":
        raise UserError(f"peft_type={kind!r} is not implemented; known: 'LORA'")
    for key in ("r", "lora_alpha", "target_modules"):
        if facts.get(key) is None:
            raise UserError(f"key {key!r} is missing; a LoRA adapter cannot be run without it")
    for key, neutral in (("bias", "none"), ("task_type", "CAUSAL_LM"), ("fan_in_fan_out", False)):
        if facts.get(key) not in (None, neutral):
            raise UserError(f"{key}={facts[key]!r} is not implemented; known: {neutral!r}")
    if facts.get("init_lora_weights") not in _PLAIN_INIT:
        raise UserError(
            f"init_lora_weights={facts['init_lora_weights']!r} also changes the base; save the adapter as plain LoRA "
            "(PEFT: path_initial_model_for_weight_conversion)"
        )
    for key, value in facts.items():
        if key not in _READ and key not in _HARMLESS and value:
            raise UserError(f"{key}={value!r} is not implemented; refused, not ignored")
    layers = facts.get("layers_to_transform")
    layers = layers if isinstance(layers, list) else None if layers is None else [layers]
    settings = Settings(
        rank=_whole("r", facts["r"]),
        alpha=_number("lora_alpha", facts["lora_alpha"]),
        dropout=_number("lora_dropout", facts.get("lora_dropout") or 0.0),
        rslora=bool(facts.get("use_rslora")),
        rank_pattern={k: _whole(f"rank_pattern {k}", v) for k, v in (facts.get("rank_pattern") or {}).items()},
        alpha_pattern={k: _number(f"alpha_pattern {k}", v) for k, v in (facts.get("alpha_pattern") or {}).items()},
        target_modules=_modules("target_modules", facts["target_modules"]),
        exclude_modules=_modules("exclude_modules", facts["exclude_modules"]) if facts.get("exclude_modules") else None,
        layers=frozenset(layers) if layers else None,
        layers_pattern=_modules("layers_pattern", facts.get("layers_pattern") or []),
    )
    if isinstance(settings.target_modules, str) and settings.layers is not None:
        raise UserError("layers_to_transform goes with a list of target_modules, not with a regex")
    return settings


def _modules(key: str, value: Any) -> Any:
    """Returns a regex as it is, a list of names as a tuple."""
    if key == "layers_pattern" and isinstance(value, str):
        return (value,)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UserError(f"{key}={value!r} is neither a string nor a list of strings")


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{key}={value!r} is not a whole number >= 1")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key}={value!r} is not a number")
    return float(value)


def write(
    *,
    rank: int,
    alpha: float,
    dropout: float,
    rslora: bool,
    rank_pattern: dict[str, int],
    alpha_pattern: dict[str, float],
    target_modules: list[str],
    base_name: str | None,
) -> dict[str, Any]:
    """Returns the adapter_config.json that PEFT >= 0.4 and vLLM read."""
    return {
        "alpha_pattern": alpha_pattern,
        "auto_mapping": None,
        "base_model_name_or_path": base_name,
        "bias": "none",
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_bias": False,
        "lora_dropout": dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": rank_pattern,
        "revision": None,
        "target_modules": sorted(target_modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": rslora,
    }
