"""Gemma 3 (text): Gemma 2 with norms on q and k instead of caps on scores, and two rotary tables.

Five layers with a window and short wavelengths to one that sees everything, with long ones (Gemma Team 2025, sec. 2).
"""

import dataclasses
from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names, gemma2


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Gemma 3 text config.json describes.

    Without layer_types every sliding_window_pattern-th layer (6) sees everything. attn_logit_softcapping must be null:
    transformers reads the key and does not apply it.
    """
    keys = _hf.Keys(hf)
    n_layers, window = keys.size("num_hidden_layers"), keys.size("sliding_window", 4096)
    pattern = keys.size("sliding_window_pattern", keys.get("_sliding_window_pattern", 6))
    kinds = _hf.layer_kinds(keys, _hf.kinds_of([(layer + 1) % pattern != 0 for layer in range(n_layers)]))
    sliding = tuple(kind == "sliding_attention" for kind in kinds)
    keys.neutral("use_bidirectional_attention", False)
    keys.neutral("attn_logit_softcapping")
    act = _hf.activation(keys, "hidden_activation", "gelu_pytorch_tanh")
    keys.neutral("hidden_act", act)
    bias = keys.flag("attention_bias", False)
    query_scale = keys.number("query_pre_attn_scalar", 256) ** -0.5
    logit_softcap = keys.optional("final_logit_softcapping", None)
    full, local = _hf.ropes_by_kind(
        keys,
        full=1_000_000.0,
        sliding=10_000.0,
        max_position=keys.size("max_position_embeddings", 131_072),
        head_dim=_hf.head_dim_of(keys, 256),
    )
    config = _hf.decoder_config(
        keys,
        "gemma3_text",
        n_kv_heads=4,
        head_dim=256,
        max_position=131_072,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=False,
        qk_norm=True,
        windows=tuple(window if yes else 0 for yes in sliding),
        rope_given=full,
        tied=True,
        act=act,
    )
    return dataclasses.replace(
        config,
        second_rope=local if any(sliding) else None,
        second_rope_layers=sliding if any(sliding) else (),
        query_scale=query_scale,
        logit_softcap=logit_softcap,
        post_norms=True,
        norm_offset=1.0,
        embed_scale=config.d_model**0.5,
    )


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config, norms=gemma2.NORMS)
