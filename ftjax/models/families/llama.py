"""Llama 1 to 3.x, and the many models that share its architecture (SmolLM2, TinyLlama, Yi, DeepSeek-LLM)."""

from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Llama config.json describes; attention_bias covers q, k, v and o."""
    keys = _hf.Keys(hf)
    bias = keys.flag("attention_bias", False)
    return _hf.decoder_config(
        keys,
        "llama",
        n_kv_heads=None,
        head_dim=None,
        max_position=2048,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=keys.flag("mlp_bias", False),
        qk_norm=False,
        windows=(0,) * keys.size("num_hidden_layers"),
    )


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config)
