"""A Llama checkpoint of any size that holds no knowledge: random bfloat16 weights in shards, written as a stream."""

import json
import math

SHARD = 500_000_000


def facts(layers, width, inner, heads, kv_heads, vocab, tied, *, head_dim=None):
    """Returns the config.json of a Llama of these sizes."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim or width // heads,
        "vocab_size": vocab,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }


def write(folder, hf):
    """Writes the checkpoint and returns its bytes; a second of random numbers is repeated all over it."""
    import ml_dtypes
    import numpy as np

    from ftjax.checkpoint import shards
    from ftjax.models.families import llama

    block = np.random.default_rng(0).standard_normal(1 << 23, np.float32).astype(ml_dtypes.bfloat16) * 0.02
    block = block.astype(ml_dtypes.bfloat16)
    width, wide, vocab = hf["hidden_size"], hf["intermediate_size"], hf["vocab_size"]
    q, kv = hf["num_attention_heads"] * hf["head_dim"], hf["num_key_value_heads"] * hf["head_dim"]
    shapes = {"q_proj": (q, width), "k_proj": (kv, width), "v_proj": (kv, width), "o_proj": (width, q)}
    shapes |= {"gate_proj": (wide, width), "up_proj": (wide, width), "down_proj": (width, wide)}
    shapes |= {"embed_tokens": (vocab, width), "lm_head": (vocab, width)}
    kind = np.dtype(ml_dtypes.bfloat16)

    def plan(name):
        shape = shapes.get(name.removesuffix(".weight").rsplit(".", 1)[-1], (width,))
        make = lambda: np.resize(block, math.prod(shape)).reshape(shape) if len(shape) > 1 else np.ones(shape, kind)
        return shards.Planned(name, kind, shape, make)

    planned = [plan(name) for name in llama.names_from_hf(llama.config_from_hf(hf))]
    groups = [[]]
    for tensor in planned:
        if sum(one.nbytes for one in groups[-1]) + tensor.nbytes > SHARD and groups[-1]:
            groups.append([])
        groups[-1].append(tensor)
    names = [f"model-{k + 1:05d}-of-{len(groups):05d}.safetensors" for k in range(len(groups))]
    for name, group in zip(names, groups, strict=True):
        shards.write(folder / name, group)
    where = {tensor.name: name for name, group in zip(names, groups, strict=True) for tensor in group}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps(hf))
    return sum(tensor.nbytes for tensor in planned)
