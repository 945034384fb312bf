"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and windows on the upper layers where asked for."""

from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Qwen2 config.json describes; q, k and v always have biases, o never."""
    keys = _hf.Keys(hf)
    return _hf.decoder_config(
        keys,
        "qwen2",
        n_kv_heads=32,
        head_dim=None,
        max_position=32_768,
        qkv_bias=True,
        o_bias=False,
        mlp_bias=False,
        qk_norm=False,
        windows=_hf.windows_by_layer(keys, keys.size("num_hidden_layers")),
    )


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config)
