"""Qwen3 (dense): RMS norms on the heads of q and k, an explicit head_dim, windows on upper layers where asked for."""

from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Qwen3 config.json describes; attention_bias covers q, k, v and o."""
    keys = _hf.Keys(hf)
    bias = keys.flag("attention_bias", False)
    return _hf.decoder_config(
        keys,
        "qwen3",
        n_kv_heads=32,
        head_dim=128,
        max_position=32_768,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=False,
        qk_norm=True,
        windows=_hf.windows_by_layer(keys, keys.size("num_hidden_layers")),
    )


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config)
