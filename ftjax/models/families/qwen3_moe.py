"""Qwen3-MoE: Qwen3 with experts in every layer, eight of 128 for each token (Yang et al. 2025)."""

import dataclasses
from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Qwen3-MoE config.json describes; moe_intermediate_size is the width of an expert.

    A model that mixes dense and sparse layers (mlp_only_layers, decoder_sparse_step) is refused. Keys of the
    load-balancing loss say nothing about the forward pass and are ignored.
    """
    keys = _hf.Keys(hf)
    bias = keys.flag("attention_bias", False)
    keys.neutral("mlp_only_layers", [])
    keys.neutral("decoder_sparse_step", 1)
    n_layers, window = keys.size("num_hidden_layers"), keys.size("sliding_window", 4096)
    window = window if keys.flag("use_sliding_window", False) else 0
    n_experts = keys.size("num_experts", keys.size("num_local_experts", 128))
    keys.neutral("num_local_experts", n_experts)  # transformers' other name of the same
    top_k, d_ff = keys.size("num_experts_per_tok", 8), keys.size("moe_intermediate_size", 768)
    normalize = keys.flag("norm_topk_prob", False)
    config = _hf.decoder_config(
        keys,
        "qwen3_moe",
        n_kv_heads=4,
        head_dim=None,
        max_position=32_768,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=False,
        qk_norm=True,
        windows=(window,) * n_layers,
    )
    config = dataclasses.replace(config, n_experts=n_experts, top_k=top_k, normalize_top_k=normalize, d_ff=d_ff)
    _hf.check_experts(config)
    return config


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config)
