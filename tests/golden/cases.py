"""The tiny models and adapters of the golden files: every switch of every family, in a few kilobytes each.

`scripts/make_goldens.py` runs them through transformers and PEFT and writes `<case>.npz`; the tests read those.
Weights are numbers of float16, so that they are stored in half the bytes and exact in every wider type.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import numpy as safetensors_numpy

FOLDER = Path(__file__).resolve().parent
V, EOS, LAYERS = 61, 2, 3

_SIZES = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "torch_dtype": "float32",
}
_LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


_CLASSES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3",
    "phi3": "Phi3",
    "smollm3": "SmolLM3",
    "olmo2": "Olmo2",
    "mixtral": "Mixtral",
    "qwen3_moe": "Qwen3Moe",
}
_LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.3, 2.0], "long_factor": [1.0, 2.5, 7.0]}


def _model(model_type: str, **keys: Any) -> dict[str, Any]:
    sizes = {key: value for key, value in _SIZES.items() if not (key == "hidden_act" and "gemma" in model_type)}
    if model_type in ("phi3", "smollm3"):  # whose default is beyond this vocabulary
        sizes["pad_token_id"] = 0
    return {"model_type": model_type, "architectures": [f"{_CLASSES[model_type]}ForCausalLM"]} | sizes | keys


MODELS: dict[str, dict[str, Any]] = {
    "llama_plain": _model("llama", num_key_value_heads=4, tie_word_embeddings=False),
    "llama_linear_biases": _model(
        "llama",
        head_dim=12,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
        rope_theta=5000.0,
        rope_scaling={"type": "linear", "factor": 2.0},
    ),
    "llama_dynamic": _model(
        "llama", max_position_embeddings=8, rope_theta=100.0, rope_scaling={"rope_type": "dynamic", "factor": 3.0}
    ),
    "llama_llama3_old_keys": _model("llama", rope_theta=50.0, rope_scaling={"rope_type": "llama3"} | _LLAMA3),
    "llama_llama3_new_keys": _model(
        "llama", num_key_value_heads=1, rope_parameters={"rope_type": "llama3", "rope_theta": 50.0} | _LLAMA3
    ),
    "mistral_window": _model("mistral", sliding_window=5, head_dim=16, rope_theta=100.0),
    "mistral_full": _model("mistral", sliding_window=None, tie_word_embeddings=True),
    "qwen2_plain": _model("qwen2", tie_word_embeddings=True, use_sliding_window=False, sliding_window=4),
    "qwen2_upper_windows": _model("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen2_alternating": _model(
        "qwen2",
        use_sliding_window=True,
        sliding_window=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"rope_type": "linear", "factor": 1.5, "rope_theta": 1000.0},
    ),
    "qwen3_plain": _model("qwen3", head_dim=16, tie_word_embeddings=True, rope_theta=1_000_000.0),
    "qwen3_biases_windows": _model(
        "qwen3", head_dim=8, attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=2
    ),
    "llama_yarn": _model(
        "llama",
        rope_theta=100.0,
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    ),
    "qwen2_yarn_all_keys": _model(
        "qwen2",
        use_sliding_window=False,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 50.0,
            "factor": 3.0,
            "original_max_position_embeddings": 24,
            "beta_fast": 4.0,
            "beta_slow": 0.7,
            "mscale": 0.8,
            "mscale_all_dim": 0.3,
            "truncate": False,
        },
    ),
    "gemma2_capped": _model(
        "gemma2",
        head_dim=12,
        sliding_window=5,
        query_pre_attn_scalar=20,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "gemma2_uncapped": _model(
        "gemma2",
        head_dim=8,
        sliding_window=4,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        attention_bias=True,
        tie_word_embeddings=False,
    ),
    "gemma3_old_keys": _model(
        "gemma3_text",
        head_dim=8,
        sliding_window=6,
        sliding_window_pattern=2,
        query_pre_attn_scalar=10,
        rope_theta=1000.0,
        rope_local_base_freq=20.0,
        rope_scaling={"rope_type": "linear", "factor": 3.0},
        final_logit_softcapping=4.0,
    ),
    "gemma3_new_keys": _model(
        "gemma3_text",
        head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    ),
    "phi3_window": _model("phi3", sliding_window=5, rope_theta=100.0),
    "phi3_longrope": _model(
        "phi3",
        partial_rotary_factor=0.75,
        original_max_position_embeddings=8,
        rope_theta=100.0,
        rope_scaling=_LONGROPE,
        tie_word_embeddings=True,
    ),
    "phi3_grows_long": _model(  # the prompt is short, its completion long
        "phi3",
        partial_rotary_factor=0.75,
        original_max_position_embeddings=24,
        rope_theta=100.0,
        rope_scaling=_LONGROPE | {"factor": 2.0},
    ),
    "smollm3_plain": _model("smollm3", num_hidden_layers=4, rope_theta=100.0),
    "smollm3_windows_biases": _model(
        "smollm3",
        no_rope_layers=[1, 0, 0],
        use_sliding_window=True,
        sliding_window=4,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
    ),
    "olmo2_plain": _model("olmo2", rope_theta=100.0),
    "olmo2_biases": _model("olmo2", attention_bias=True, num_key_value_heads=1, tie_word_embeddings=True),
    "mixtral_plain": _model("mixtral", intermediate_size=20, num_local_experts=4, num_experts_per_tok=2),
    "mixtral_window": _model(
        "mixtral",
        intermediate_size=12,
        num_local_experts=5,
        num_experts_per_tok=3,
        sliding_window=5,
        head_dim=16,
        output_router_logits=False,
        router_aux_loss_coef=0.02,
    ),
    "qwen3_moe_plain": _model("qwen3_moe", head_dim=16, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=12),
    "qwen3_moe_normalized": _model(
        "qwen3_moe",
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=20,
        norm_topk_prob=True,
        use_sliding_window=True,
        sliding_window=5,
        attention_bias=True,
        tie_word_embeddings=True,
    ),
}

# Decoding compiles for seconds, so the default suite decodes these: together they have every mechanism.
DECODED = (
    *("llama_dynamic", "llama_linear_biases", "mistral_window", "qwen2_alternating", "qwen3_biases_windows"),
    *("gemma2_capped", "gemma3_old_keys", "phi3_grows_long", "smollm3_windows_biases", "olmo2_plain"),
    *("mixtral_window", "qwen3_moe_plain"),
)

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_FEW = {"r": 2, "lora_alpha": 4}
# case -> (base, arguments of peft.LoraConfig, or of the config of the peft_type)
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora_qv": ("llama_plain", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1}),
    "lora_all_linear": ("qwen3_plain", {"r": 3, "lora_alpha": 16, "target_modules": "all-linear"}),
    "lora_rslora": ("qwen2_plain", {"r": 4, "lora_alpha": 6, "target_modules": LINEAR, "use_rslora": True}),
    "lora_patterns": (
        "mistral_full",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn\.q_proj": 6},
            "alpha_pattern": {"v_proj": 3, r"layers\.1\.self_attn\.q_proj": 1},
        },
    ),
    "lora_some_layers": (
        "llama_linear_biases",
        {"r": 2, "lora_alpha": 4, "target_modules": ["o_proj", "up_proj"], "layers_to_transform": [0, 2]},
    ),
    "lora_regex": (
        "llama_llama3_old_keys",
        {"r": 2, "lora_alpha": 2, "target_modules": r".*layers\.[01]\.(self_attn\.k_proj|mlp\.gate_proj)"},
    ),
    "lora_head": ("llama_plain", {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "lm_head"]}),
    "lora_fused": ("phi3_window", _FEW | {"target_modules": ["qkv_proj", "gate_up_proj", "down_proj"]}),
    "lora_embedding_tied": ("qwen2_plain", _FEW | {"target_modules": ["q_proj", "embed_tokens"]}),
    "lora_embedding_both": (
        "qwen2_plain",
        _FEW | {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    ),
    "lora_saved": (
        "llama_plain",
        _FEW | {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "lora_saved_tied": ("qwen2_plain", _FEW | {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    "lora_tokens": ("qwen2_plain", _FEW | {"target_modules": ["q_proj"], "trainable_token_indices": [40, 3, 7]}),
    "dora": (
        "qwen2_upper_windows",
        _FEW
        | {"target_modules": [*LINEAR, "embed_tokens", "lm_head"], "use_dora": True, "rank_pattern": {"down_proj": 3}},
    ),
    "ia3": (
        "qwen2_upper_windows",
        {"peft_type": "IA3", "target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    ),
    "vera": ("llama_plain", {"peft_type": "VERA", "r": 4, "target_modules": ["q_proj", "down_proj"]}),
}
# More of them, compared with the installed PEFT alone.
MORE_ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dora_fused": ("phi3_window", _FEW | {"target_modules": ["qkv_proj", "gate_up_proj"], "use_dora": True}),
    "ia3_fused": (
        "phi3_window",
        {"peft_type": "IA3", "target_modules": ["qkv_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    ),
    "dora_some_layers": (
        "llama_plain",
        _FEW | {"target_modules": ["q_proj", "up_proj"], "use_dora": True, "layers_to_transform": [0, 2]},
    ),
    "ia3_some_layers": (
        "llama_plain",
        {
            "peft_type": "IA3",
            "target_modules": r".*layers\.[12]\.(self_attn\.k_proj|mlp\.down_proj)",
            "feedforward_modules": r".*down_proj",
        },
    ),
    "vera_some_layers": (
        "qwen2_plain",
        {
            "peft_type": "VERA",
            "r": 4,
            "target_modules": ["v_proj", "up_proj"],
            "layers_to_transform": [1],
            "save_projection": False,
            "projection_prng_key": 7,
        },
    ),
    "lora_saved_both": (
        "qwen2_plain",
        _FEW | {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "lora_saved_head": ("qwen2_plain", _FEW | {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "lora_saved_apart": (
        "qwen2_plain",
        _FEW | {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "lora_saved_norms": ("llama_plain", _FEW | {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm"]}),
    "lora_head_tied": ("qwen2_plain", _FEW | {"target_modules": ["q_proj", "lm_head"]}),
    "lora_tokens_untied": ("llama_plain", _FEW | {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6]}),
    "lora_tokens_apart": (
        "qwen2_plain",
        _FEW | {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 7], "lm_head": [5]}},
    ),
    "lora_scaled_embedding": ("gemma3_old_keys", _FEW | {"target_modules": ["q_proj", "embed_tokens"]}),
    "lora_scaled_tokens": ("gemma2_capped", _FEW | {"target_modules": ["q_proj"], "trainable_token_indices": [9]}),
    "dora_embedding_tied": ("qwen2_plain", _FEW | {"target_modules": ["v_proj", "embed_tokens"], "use_dora": True}),
}
# PEFT merges an embedding that is the head as well into both, so that its merged model is another than the attached.
MERGED_APART = (
    *("lora_embedding_tied", "lora_embedding_both", "lora_head_tied", "lora_tokens_apart", "lora_scaled_embedding"),
    "dora_embedding_tied",
)


def rounded(rng: np.random.Generator, shape: tuple[int, ...], scale: float, mean: float = 0.0) -> np.ndarray:
    """Random normal numbers that float16 holds exactly."""
    return (mean + scale * rng.standard_normal(shape)).astype(np.float16)


def inputs() -> dict[str, np.ndarray]:
    """The three kinds of input, one shape: plain, left-padded (segment 0 is padding) and packed documents."""
    rng = np.random.default_rng(7)
    draw = lambda: rng.integers(3, V, (2, 20), dtype=np.int32)
    padded = np.ones((2, 20), np.int32)
    padded[0, :7] = 0
    packed = np.stack([np.repeat([1, 2, 3], lengths) for lengths in ([6, 5, 9], [1, 12, 7])]).astype(np.int32)
    return {
        "plain": draw(),
        "plain_segments": np.ones((2, 20), np.int32),
        "padded": draw() * padded,
        "padded_segments": padded,
        "packed": draw(),
        "packed_segments": packed,
    }


def read(case: str) -> dict[str, Any]:
    """A golden file: arrays by name, tensors under "tensors", the JSON config under "config"."""
    with np.load(FOLDER / f"{case}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    tensors = {n.removeprefix("tensor:"): arrays.pop(n) for n in list(arrays) if n.startswith("tensor:")}
    return arrays | {"tensors": tensors, "config": json.loads(str(arrays["config"]))}


def unpack(case: str, folder: Path, *, dtype: str = "float32") -> Path:
    """Writes a golden file as the folder that its model or adapter would be, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    golden = read(case)
    stem, kind = ("adapter_model", "adapter_config") if case in ADAPTERS else ("model", "config")
    tensors = {name: value.astype(dtype) for name, value in golden["tensors"].items()}
    safetensors_numpy.save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    (folder / f"{kind}.json").write_text(json.dumps(golden["config"]))
    return folder


def write(case: str, *, config: dict[str, Any], tensors: dict[str, np.ndarray], **arrays: np.ndarray) -> None:
    """Writes a golden file."""
    for name, value in tensors.items():
        assert np.array_equal(value.astype(np.float16).astype(np.float32), value.astype(np.float32)), name
    stored = {f"tensor:{name}": value.astype(np.float16) for name, value in tensors.items()}
    np.savez_compressed(FOLDER / f"{case}.npz", config=np.array(json.dumps(config)), **stored, **arrays)
