"""SmolLM3: Llama whose every fourth layer has no rotary embedding (NoPE, Yang et al. 2025)."""

import dataclasses
from typing import Any

from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a SmolLM3 config.json describes.

    no_rope_layers has 1 for a layer with rotary embedding, 0 for one without; where it is absent, every
    no_rope_layer_interval-th layer (4) is without.
    """
    keys = _hf.Keys(hf)
    n_layers = keys.size("num_hidden_layers")
    interval = keys.size("no_rope_layer_interval", 4)
    marks = keys.get("no_rope_layers", [int((layer + 1) % interval != 0) for layer in range(n_layers)])
    if not isinstance(marks, list) or len(marks) < n_layers or any(mark not in (0, 1) for mark in marks):
        raise UserError(f"no_rope_layers={marks!r} is not a list of 0 and 1 with num_hidden_layers={n_layers} entries")
    without = tuple(mark == 0 for mark in marks[:n_layers])
    slides = keys.flag("use_sliding_window", False)
    window = keys.size("sliding_window", 1) if hf.get("sliding_window") is not None else 0
    kinds = _hf.layer_kinds(keys, _hf.kinds_of([bool(slides and window and bare) for bare in without]))
    if "sliding_attention" in kinds and not (slides and window):
        raise UserError("layer_types: sliding_attention needs use_sliding_window and sliding_window")
    bias = keys.flag("attention_bias", False)
    config = _hf.decoder_config(
        keys,
        "smollm3",
        n_kv_heads=4,
        head_dim=None,
        max_position=32_768,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=keys.flag("mlp_bias", False),
        qk_norm=False,
        windows=tuple(window if kind == "sliding_attention" else 0 for kind in kinds),
        rope_theta=2_000_000.0,
        tied=True,
    )
    if not any(without):
        return config
    bare = model_config.Rope(kind="none", theta=config.rope.theta, partial=config.rope.partial)
    return dataclasses.replace(config, second_rope=bare, second_rope_layers=without)


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config)
