"""OLMo 2: Llama with norms after attention and MLP instead of before, and norms on all of q and k (OLMo Team 2024)."""

import dataclasses
from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names

NORMS = {"attention_out_norm": "post_attention_layernorm", "mlp_out_norm": "post_feedforward_layernorm"}


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that an OLMo 2 config.json describes; attention_bias covers q, k, v and o."""
    keys = _hf.Keys(hf)
    bias = keys.flag("attention_bias", False)
    config = _hf.decoder_config(
        keys,
        "olmo2",
        n_kv_heads=None,
        head_dim=None,
        max_position=2048,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=False,
        qk_norm=True,
        windows=(0,) * keys.size("num_hidden_layers"),
        norm_eps=1e-5,
    )
    return dataclasses.replace(config, qk_norm_whole=True, pre_norms=False, post_norms=True)


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config, norms=NORMS)
