"""One transformer block, for training and for decoding alike: attention's inputs, and what comes after it.

To add a mechanism: a field in `config.py`, a leaf in `params.py` if it has weights, one branch here.
"""

from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from ftjax import mesh
from ftjax.models.config import ModelConfig, Rope
from ftjax.models.params import PROJECTIONS, Block
from ftjax.nn import moe, norm, rope
from ftjax.nn.matmul import linear

# What remat "dots" keeps: outputs of the matmuls that cost most to redo; norms, rotations and gates are recomputed.
SAVED = ("q", "k", "v", "attended", "out", "middle", "gate", "up", "down", "narrow")


class Layer(NamedTuple):
    """What one layer is given by the scan; in a stack of them every array has a leading axis [L]."""

    block: Block
    window: jax.Array | None  # int32 []; None where no layer has one
    table: jax.Array | None  # int32 []: which of the two rotary tables; None where there is one


def layers(blocks: Block, config: ModelConfig) -> Layer:
    """Returns the stack of layers that a scan goes through."""
    window = jnp.asarray(config.windows, jnp.int32) if any(config.windows) else None
    table = jnp.asarray(config.second_rope_layers, jnp.int32) if config.second_rope else None
    return Layer(blocks, window, table)


def angles(positions_BT: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Returns cosine and sine of every position, [B, T, half], or [2, B, T, half] where layers have one of two."""
    length = jnp.max(positions_BT) + 1
    first = _table(positions_BT, config.rope, config.rotary_dim, length)
    if config.second_rope is None:
        return first
    second = _table(positions_BT, config.second_rope, config.rotary_dim, length)
    return jnp.stack([first[0], second[0]]), jnp.stack([first[1], second[1]])


def _table(positions_BT: jax.Array, r: Rope, dim: int, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    inverse = rope.frequencies(
        dim=dim,
        kind=r.kind,
        theta=r.theta,
        factor=r.factor,
        low_freq_factor=r.low_freq_factor,
        high_freq_factor=r.high_freq_factor,
        original_max_position=r.original_max_position,
        beta_fast=r.beta_fast,
        beta_slow=r.beta_slow,
        truncate=r.truncate,
        short_factors=r.short_factors,
        long_factors=r.long_factors,
        length=length,
    )
    return rope.angles(positions_BT, inverse, factor=r.attention_factor)


def _turn(
    q_BTNH: jax.Array, k_BTKH: jax.Array, tables: tuple[jax.Array, jax.Array], table: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Returns q and k rotated by the layer's table."""
    if table is None:
        return rope.rotate(q_BTNH, *tables), rope.rotate(k_BTKH, *tables)

    def pick(q: jax.Array, k: jax.Array, cos: jax.Array, sin: jax.Array, at: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rope.rotate(q, cos[at], sin[at]), rope.rotate(k, cos[at], sin[at])

    # Under a checkpoint the backward pass keeps the layer's number, not a copy of cosine and sine for each layer.
    return jax.checkpoint(pick, prevent_cse=False)(q_BTNH, k_BTKH, *tables, table)


def qkv(
    x_BTD: jax.Array, layer: Layer, tables: tuple[jax.Array, jax.Array], config: ModelConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns q [B, T, N, H] and k, v [B, T, K, H], normalised and rotated."""
    c, block = config, layer.block
    normed = _norm(x_BTD, block.input_norm, c) if c.pre_norms else x_BTD
    heads = lambda y, n: y.reshape(*y.shape[:2], n, c.head_dim)
    q, k = _project(normed, block, "q"), _project(normed, block, "k")
    if c.qk_norm and c.qk_norm_whole:
        q, k = _norm(q, block.q_norm, c), _norm(k, block.k_norm, c)
    q_BTNH, k_BTKH = heads(q, c.n_heads), heads(k, c.n_kv_heads)
    v_BTKH = heads(_project(normed, block, "v"), c.n_kv_heads)
    if c.qk_norm and not c.qk_norm_whole:
        q_BTNH, k_BTKH = _norm(q_BTNH, block.q_norm, c), _norm(k_BTKH, block.k_norm, c)
    q_BTNH, k_BTKH = _turn(q_BTNH, k_BTKH, tables, layer.table)
    q_BTNH, k_BTKH = mesh.constrain(q_BTNH, "B T K H"), mesh.constrain(k_BTKH, "B T K H")
    return checkpoint_name(q_BTNH, "q"), checkpoint_name(k_BTKH, "k"), checkpoint_name(v_BTKH, "v")


def after_attention(x_BTD: jax.Array, attended: jax.Array, layer: Layer, config: ModelConfig) -> jax.Array:
    """Returns the block's output: the attention's projection and the gated MLP, each added to its input."""
    c, block = config, layer.block
    merged = attended.reshape(*x_BTD.shape[:2], c.q_dim)
    out_BTD = _project(merged, block, "o")
    if c.post_norms:
        out_BTD = _norm(checkpoint_name(out_BTD, "out"), block.attention_out_norm, c)
    x_BTD = mesh.constrain(x_BTD + out_BTD, "B T D")
    x_BTD = checkpoint_name(x_BTD, "middle")
    normed = _norm(x_BTD, block.post_norm, c) if c.pre_norms else x_BTD
    out_BTD = _mlp(normed, block, c)
    if c.post_norms:
        out_BTD = _norm(checkpoint_name(out_BTD, "down"), block.mlp_out_norm, c)
    return mesh.constrain(x_BTD + out_BTD, "B T D")


def _project(x: jax.Array, block: Block, name: str) -> jax.Array:
    weight = f"{name}_proj"
    return linear(x, getattr(block, weight), getattr(block, f"{name}_bias"), PROJECTIONS[weight])


def _mlp(x_BTD: jax.Array, block: Block, config: ModelConfig) -> jax.Array:
    act = _activation(config.activation)
    if config.n_experts:
        return moe.mixture(
            x_BTD,
            block.router,
            block.gate_proj,
            block.up_proj,
            block.down_proj,
            top_k=config.top_k,
            normalize=config.normalize_top_k,
            activation=act,
        )
    gate_BTF = checkpoint_name(_project(x_BTD, block, "gate"), "gate")
    up_BTF = checkpoint_name(_project(x_BTD, block, "up"), "up")
    inner_BTF = mesh.constrain(act(gate_BTF) * up_BTF, "B T F")
    return _project(inner_BTF, block, "down")


def _norm(x: jax.Array, weight: jax.Array, config: ModelConfig) -> jax.Array:
    return norm.rms_norm(x, weight, eps=config.norm_eps, offset=config.norm_offset)


def _tanh_gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


def _activation(name: str) -> Any:
    if name == "silu":
        return jax.nn.silu
    if name == "gelu_pytorch_tanh":
        return _tanh_gelu
    raise ValueError(f"activation {name!r} is unknown; known are silu, gelu_pytorch_tanh")
