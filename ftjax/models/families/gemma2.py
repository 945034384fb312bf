"""Gemma 2: alternating windows, soft caps on scores and logits, norms before and after, scaled embeddings.

Riviere et al. 2024, section 2. Norms multiply by 1 + weight, and the weights stay as the file has them.
"""

import dataclasses
from typing import Any

from ftjax.models import config as model_config
from ftjax.models.families import _hf, _names

NORMS = {
    "input_norm": "input_layernorm",
    "attention_out_norm": "post_attention_layernorm",
    "post_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}


def config_from_hf(hf: dict[str, Any]) -> model_config.ModelConfig:
    """Returns the config that a Gemma 2 config.json describes; without layer_types, layers 0, 2, 4 .. have windows.

    A soft cap of null means none, an absent one transformers' default (50 for scores, 30 for logits).
    """
    keys = _hf.Keys(hf)
    n_layers, window = keys.size("num_hidden_layers"), keys.size("sliding_window", 4096)
    kinds = _hf.layer_kinds(keys, _hf.kinds_of([layer % 2 == 0 for layer in range(n_layers)]))
    keys.neutral("use_bidirectional_attention", False)
    keys.neutral("sliding_window_size", window)  # an older spelling in published files, which transformers ignores
    act = _hf.activation(keys, "hidden_activation", "gelu_pytorch_tanh")
    keys.neutral("hidden_act", act)  # ignored by transformers, so it must not say something else
    bias = keys.flag("attention_bias", False)
    query_scale = keys.number("query_pre_attn_scalar", 256) ** -0.5
    attention_softcap = keys.optional("attn_logit_softcapping", 50.0)
    logit_softcap = keys.optional("final_logit_softcapping", 30.0)
    config = _hf.decoder_config(
        keys,
        "gemma2",
        n_kv_heads=4,
        head_dim=256,
        max_position=8192,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=False,
        qk_norm=False,
        windows=tuple(window if kind == "sliding_attention" else 0 for kind in kinds),
        tied=True,
        act=act,
    )
    return dataclasses.replace(
        config,
        query_scale=query_scale,
        attention_softcap=attention_softcap,
        logit_softcap=logit_softcap,
        post_norms=True,
        norm_offset=1.0,
        embed_scale=config.d_model**0.5,
    )


def names_from_hf(config: model_config.ModelConfig) -> dict[str, _hf.Place]:
    """Returns where each tensor of the checkpoint lives in our tree."""
    return _names.decoder_names(config, norms=NORMS)
