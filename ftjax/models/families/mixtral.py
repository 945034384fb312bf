"""Mixtral: Mistral with experts, two of eight for each token (Jiang et al. 2024)."""

import dataclasses
from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names

_NAMES = {"gate": "w1", "up": "w3", "down": "w2"}


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Mixtral config.json describes; the weights of a token's experts add up to 1.

    Keys of the load-balancing loss and of the router's noise say nothing about the forward pass and are ignored.
    """
    keys = _hf.Keys(hf)
    n_layers = keys.size("num_hidden_layers")
    window = keys.size("sliding_window", 1) if hf.get("sliding_window") is not None else 0
    n_experts, top_k = keys.size("num_local_experts", 8), keys.size("num_experts_per_tok", 2)
    config = _hf.decoder_config(
        keys,
        "mixtral",
        n_kv_heads=8,
        head_dim=None,
        max_position=131_072,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=False,
        windows=(window,) * n_layers,
        rope_theta=1_000_000.0,
        norm_eps=1e-5,
    )
    config = dataclasses.replace(config, n_experts=n_experts, top_k=top_k, normalize_top_k=True)
    _hf.check_experts(config)
    return config


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config, mlp="block_sparse_moe", expert=_NAMES)
