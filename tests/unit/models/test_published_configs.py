"""config.json as published models have it, keys that mean nothing included: it is read, and gives their size."""

import pytest

from ftjax import tree
from ftjax.models import params
from ftjax.models.families import _hf

_LONGROPE = {"long_factor": [1.5] * 48, "short_factor": [1.0] * 48, "type": "longrope"}
_COMMON = {"initializer_range": 0.02, "use_cache": True, "torch_dtype": "bfloat16", "attention_dropout": 0.0}
# name -> (billions of parameters, config.json)
PUBLISHED = {
    "Gemma 2 9B": (
        9.24,
        {
            **{"model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "head_dim": 256},
            **{"num_attention_heads": 16, "num_key_value_heads": 8, "num_hidden_layers": 42, "vocab_size": 256000},
            **{"max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "attention_bias": False},
            **{"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4096},
            **{"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256},
            **{"cache_implementation": "hybrid", "sliding_window_size": 4096},
        },
    ),
    "Gemma 3 1B": (
        1.00,
        {
            **{"model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "head_dim": 256},
            **{"num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 26, "vocab_size": 262144},
            **{"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "attention_bias": False},
            **{"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 512, "sliding_window_pattern": 6},
            **{"attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 256},
            **{"rope_theta": 1000000, "rope_local_base_freq": 10000, "rope_scaling": None, "eos_token_id": [1, 106]},
        },
    ),
    "Phi-3 mini 128k": (
        3.82,
        {
            **{"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 32},
            **{"num_key_value_heads": 32, "num_hidden_layers": 32, "vocab_size": 32064, "rope_scaling": _LONGROPE},
            **{"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "sliding_window": 262144},
            **{"rms_norm_eps": 1e-5, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attention_bias": False},
        },
    ),
    "Phi-4 mini": (
        3.84,
        {
            **{"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 24},
            **{"num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 200064, "rope_scaling": _LONGROPE},
            **{"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "sliding_window": 262144},
            **{"partial_rotary_factor": 0.75, "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "mlp_bias": False},
            **{"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "attention_bias": False},
        },
    ),
    "SmolLM3 3B": (
        3.08,
        {
            **{"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16},
            **{"num_key_value_heads": 4, "num_hidden_layers": 36, "vocab_size": 128256, "rope_theta": 5000000.0},
            **{"no_rope_layers": [1, 1, 1, 0] * 9, "no_rope_layer_interval": 4, "layer_types": ["full_attention"] * 36},
            **{"use_sliding_window": False, "sliding_window": None, "max_window_layers": 28, "mlp_bias": False},
            **{"max_position_embeddings": 65536, "rms_norm_eps": 1e-6, "rope_scaling": None, "pretraining_tp": 2},
        },
    ),
    "OLMo 2 7B": (
        7.30,
        {
            **{"model_type": "olmo2", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32},
            **{"num_key_value_heads": 32, "num_hidden_layers": 32, "vocab_size": 100352, "rope_theta": 500000},
            **{"max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "attention_bias": False, "rope_scaling": None},
            **{"tie_word_embeddings": False},
        },
    ),
    "Mixtral 8x7B": (
        46.7,
        {
            **{"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32},
            **{"num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 32000, "rope_theta": 1000000.0},
            **{"num_local_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.02, "sliding_window": None},
            **{"max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "output_router_logits": False},
        },
    ),
    "Qwen3 30B-A3B": (
        30.5,
        {
            **{"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 32},
            **{"num_key_value_heads": 4, "num_hidden_layers": 48, "vocab_size": 151936, "head_dim": 128},
            **{"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True},
            **{"decoder_sparse_step": 1, "mlp_only_layers": [], "router_aux_loss_coef": 0.001, "rope_scaling": None},
            **{
                "max_position_embeddings": 40960,
                "rms_norm_eps": 1e-6,
                "rope_theta": 1000000.0,
                "max_window_layers": 48,
            },
            **{"use_sliding_window": False, "sliding_window": None, "attention_bias": False},
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_read_and_has_the_published_number_of_parameters(name):
    billions, hf = PUBLISHED[name]
    config = _hf.family(hf["model_type"]).config_from_hf(_COMMON | hf)
    assert tree.count(params.abstract(config, "bfloat16")) / 1e9 == pytest.approx(billions, rel=2e-3)
