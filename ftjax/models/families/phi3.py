"""Phi-3 and Phi-4: Llama with q, k and v in one tensor, gate and up too; longrope, a part of each head rotated."""

from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Phi-3 config.json describes.

    The first files called longrope "su" or "yarn"; transformers takes both as longrope, with its keys, and so do we.
    """
    keys = _hf.Keys(_new_names(hf))
    n_layers = keys.size("num_hidden_layers")
    window = keys.size("sliding_window", 1) if hf.get("sliding_window") is not None else 0
    return _hf.decoder_config(
        keys,
        "phi3",
        n_kv_heads=None,
        head_dim=None,
        max_position=4096,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=False,
        windows=(window,) * n_layers,
        rope_original=4096,
        rope_partial=True,
        rope_kinds=("default", "longrope"),
        norm_eps=1e-5,
    )


def _new_names(hf: dict[str, Any]) -> dict[str, Any]:
    """Returns the config with its kind of rope under today's name."""
    for name in ("rope_scaling", "rope_parameters"):
        given = hf.get(name)
        if isinstance(given, dict) and given.get("rope_type", given.get("type")) in ("su", "yarn"):
            rest = {key: value for key, value in given.items() if key != "type"}
            hf = hf | {name: rest | {"rope_type": "longrope"}}
    return hf


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config, fused=True)
