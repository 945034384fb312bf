"""Mistral: Llama without biases, with one sliding window for all layers (Jiang et al. 2023)."""

from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Mistral config.json describes; sliding_window null means none, absent means 4096."""
    keys = _hf.Keys(hf)
    no_window = "sliding_window" in hf and hf["sliding_window"] is None
    window = keys.size("sliding_window", 4096)
    return _hf.decoder_config(
        keys,
        "mistral",
        n_kv_heads=8,
        head_dim=None,
        max_position=131_072,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=False,
        windows=(0 if no_window else window,) * keys.size("num_hidden_layers"),
    )


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config)
