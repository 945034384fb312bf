"""Tiny GGUF files, written with the package's own writer, names of tensors from its own table."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2"}
ARCHITECTURES["gemma3_text"] = "gemma3"


def named(architecture: str, name: str, layers: int) -> str:
    """Returns the file's name of one of Hugging Face's tensors."""
    kind = next(number for number, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    return gguf.get_tensor_name_map(kind, layers).get_name(name, (".weight", ".bias"))


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Returns the rows of each head as llama.cpp's rotary embedding wants them: pairs side by side."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def metadata(config: dict[str, Any], architecture: str) -> dict[str, Any]:
    """Returns the keys that llama.cpp's converter writes for a config.json."""
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    keys = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config.get("rope_theta") or rope.get("rope_theta") or 10_000.0,
        "rope.dimension_count": head_dim,
        "vocab_size": config["vocab_size"],
    }
    if rope.get("type", rope.get("rope_type")) == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope["factor"]}
    if config["model_type"] in ("mistral", "gemma2", "gemma3_text") and config.get("sliding_window"):
        keys["attention.sliding_window"] = config["sliding_window"]
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(name):
            keys[name] = config[name]
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def tensors(config: dict[str, Any], found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors as the converter writes them: renamed, rows of q and k permuted, Gemma's norms plus one."""
    architecture = ARCHITECTURES[config["model_type"]]
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    made = {}
    for name, value in found.items():
        value = value.astype(np.float32)
        module = name.split(".")[-2]
        if architecture == "llama" and module in heads:
            value = permuted(value, heads[module])
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            value = value + 1
        made[named(architecture, name, config["num_hidden_layers"])] = value
    return made


def write(
    path: Path,
    architecture: str,
    keys: dict[str, Any],
    arrays: dict[str, np.ndarray],
    *,
    kinds: dict[str, str] | None = None,
    raw: dict[str, np.ndarray] | None = None,
) -> Path:
    """Writes a file; `kinds` quantises tensors, `raw` are the bytes of some as they are. None is left out."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif value is not None:
            writer.add_array(name, value)
    for name, value in arrays.items():
        kind = gguf.GGMLQuantizationType[(kinds or {}).get(name, "F32")]
        data = (raw or {}).get(name)
        data = gguf.quants.quantize(value, kind) if data is None else data
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def of_folder(path: Path, config: dict[str, Any], found: dict[str, np.ndarray], **changes: Any) -> Path:
    """Writes the file of a config.json and its tensors; `changes` are further metadata, with / for the dots."""
    architecture = ARCHITECTURES[config["model_type"]]
    more = {name.replace("/", "."): value for name, value in changes.items()}
    return write(path, architecture, metadata(config, architecture) | more, tensors(config, found))
