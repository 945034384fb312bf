"""Rotary settings of a config.json, as transformers reads them: one dictionary of parameters -> `config.Rope`.

To add a kind: a branch here and one in `nn/rope.py`.
"""

import math
from typing import Any

from ftjax.errors import UserError
from ftjax.models import config as model_config

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


def positive(key: str, value: Any) -> float:
    """Returns a number > 0 or names the key."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{key}={value!r} is not a number > 0")
    return float(value)


def read(
    given: dict[str, Any],
    *,
    theta: float,
    max_position: int,
    original: int | None,
    partial: float,
    kinds: tuple[str, ...],
    head_dim: int,
) -> model_config.Rope:
    """Returns the settings that the parameters describe.

    `theta` and `partial` stand in where the dictionary says nothing; `original` (the training context, where
    config.json has it outside the dictionary) wins over it. Every key that is not understood is refused by name.
    """
    left = dict(given)
    older = left.pop("type", None)
    kind = left.pop("rope_type", older) or "default"
    if kind not in kinds:
        raise UserError(f"rope_type={kind!r} is not implemented; known: {', '.join(kinds)}")
    theta = positive("rope_theta", left.pop("rope_theta", None) or theta)
    read_: dict[str, Any] = {
        "partial": positive("partial_rotary_factor", left.pop("partial_rotary_factor", None) or partial)
    }
    if read_["partial"] > 1 or int(head_dim * read_["partial"]) % 2:
        raise UserError(
            f"partial_rotary_factor={read_['partial']!r} of head_dim={head_dim} is not an even number of features"
        )
    context = original or left.get("original_max_position_embeddings") or max_position
    if kind in ("llama3", "yarn", "longrope"):
        left.pop("original_max_position_embeddings", None)
        read_["original_max_position"] = int(positive("original_max_position_embeddings", context))
    if kind in ("linear", "dynamic", "llama3"):
        read_["factor"] = _needed(left, kind, "factor")
    if kind == "dynamic":  # transformers stretches beyond max_position_embeddings, whatever the dictionary says
        left.pop("original_max_position_embeddings", None)
        read_["original_max_position"] = max_position
    elif kind == "llama3":
        read_["low_freq_factor"] = _needed(left, kind, "low_freq_factor")
        read_["high_freq_factor"] = _needed(left, kind, "high_freq_factor")
    elif kind == "yarn":
        read_ |= _yarn(left, max_position / read_["original_max_position"])
    elif kind == "longrope":
        half = int(head_dim * read_["partial"]) // 2
        read_ |= _longrope(left, max_position / read_["original_max_position"], read_["original_max_position"], half)
    for key, value in left.items():
        if value is not None and not (key == "factor" and value == 1):
            raise UserError(f"rope_parameters: {key}={value!r} is not implemented for rope_type={kind!r}")
    return model_config.Rope(kind=kind, theta=theta, **read_)


def _needed(parameters: dict[str, Any], kind: str, key: str) -> float:
    if parameters.get(key) is None:
        raise UserError(f"rope_parameters: rope_type={kind!r} needs {key!r}")
    return positive(f"rope_parameters: {key}", parameters.pop(key))


def _optional(parameters: dict[str, Any], key: str, default: float) -> float:
    value = parameters.pop(key, None)
    return default if value is None else positive(f"rope_parameters: {key}", value)


def _yarn(left: dict[str, Any], ratio: float) -> dict[str, Any]:
    """Returns the fields of yarn; cosine and sine grow by 0.1 ln(factor) + 1 (Peng et al. 2023, eq. 22)."""
    factor = _optional(left, "factor", ratio)
    mscale, all_dim = left.pop("mscale", None), left.pop("mscale_all_dim", None)
    grow = lambda scale: 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0
    grown = grow(mscale) / grow(all_dim) if mscale and all_dim else grow(1)
    truncate = left.pop("truncate", True)
    if not isinstance(truncate, bool):
        raise UserError(f"rope_parameters: truncate={truncate!r} is neither true nor false")
    return {
        "factor": factor,
        "attention_factor": _optional(left, "attention_factor", grown),
        "beta_fast": _optional(left, "beta_fast", 32.0),
        "beta_slow": _optional(left, "beta_slow", 1.0),
        "truncate": truncate,
    }


def _longrope(left: dict[str, Any], ratio: float, original: int, half: int) -> dict[str, Any]:
    """Returns the fields of longrope; cosine and sine grow by sqrt(1 + ln(factor) / ln(context))."""
    factor = _optional(left, "factor", ratio)
    grown = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    found: dict[str, Any] = {"attention_factor": _optional(left, "attention_factor", grown)}
    for length in ("short", "long"):
        key = f"{length}_factor"
        values = left.pop(key, None)
        if not isinstance(values, list) or len(values) != half:
            raise UserError(f"rope_parameters: {key} must be a list of {half} numbers, one for each pair of features")
        found[f"{length}_factors"] = tuple(positive(f"rope_parameters: {key}", value) for value in values)
    return found
