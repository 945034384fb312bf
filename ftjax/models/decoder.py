"""The one decoder of all families: embed -> scan of blocks -> norm -> head. It never mentions adapters or bits.

To add a mechanism: a field in `config.py`, a leaf in `params.py` if it has weights, one branch here.
"""

import functools
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from ftjax import mesh
from ftjax.models.config import ModelConfig
from ftjax.models.params import Block, Decoder
from ftjax.nn import attention, norm, rope, token_logps
from ftjax.nn.cache import KVCache
from ftjax.nn.matmul import linear, matmul

# What remat "dots" keeps: outputs of the matmuls that cost most to redo; norms, rotations and gates are recomputed.
SAVED = ("q", "k", "v", "attended", "middle", "gate", "up", "narrow")


def positions_of(segments_BT: jax.Array) -> jax.Array:
    """Returns positions that restart at 0 with every segment, [B, T] int32."""
    index_BT = jnp.broadcast_to(jnp.arange(segments_BT.shape[1]), segments_BT.shape)
    previous = jnp.pad(segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    starts = jnp.where(segments_BT != previous, index_BT, 0)
    return (index_BT - jax.lax.cummax(starts, axis=1)).astype(jnp.int32)


def _angles(positions_BT: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    r = config.rope
    inverse = rope.frequencies(
        head_dim=config.head_dim,
        kind=r.kind,
        theta=r.theta,
        factor=r.factor,
        low_freq_factor=r.low_freq_factor,
        high_freq_factor=r.high_freq_factor,
        original_max_position=r.original_max_position,
        length=jnp.max(positions_BT) + 1,
    )
    return rope.angles(positions_BT, inverse)


def _qkv(
    x_BTD: jax.Array, block: Block, angles: tuple[jax.Array, jax.Array], config: ModelConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns q [B, T, N, H] and k, v [B, T, K, H], normalised and rotated."""
    c = config
    normed = norm.rms_norm(x_BTD, block.input_norm, eps=c.norm_eps)
    heads = lambda y, n: y.reshape(*y.shape[:2], n, c.head_dim)
    q_BTNH = heads(linear(normed, block.q_proj, block.q_bias), c.n_heads)
    k_BTKH = heads(linear(normed, block.k_proj, block.k_bias), c.n_kv_heads)
    v_BTKH = heads(linear(normed, block.v_proj, block.v_bias), c.n_kv_heads)
    if c.qk_norm:
        q_BTNH = norm.rms_norm(q_BTNH, block.q_norm, eps=c.norm_eps)
        k_BTKH = norm.rms_norm(k_BTKH, block.k_norm, eps=c.norm_eps)
    q_BTNH, k_BTKH = rope.rotate(q_BTNH, *angles), rope.rotate(k_BTKH, *angles)
    q_BTNH, k_BTKH = mesh.constrain(q_BTNH, "B T K H"), mesh.constrain(k_BTKH, "B T K H")
    return checkpoint_name(q_BTNH, "q"), checkpoint_name(k_BTKH, "k"), checkpoint_name(v_BTKH, "v")


def _after_attention(x_BTD: jax.Array, attended: jax.Array, block: Block, config: ModelConfig) -> jax.Array:
    """Returns the block's output: the attention's projection and the gated MLP, each added to its input."""
    merged = checkpoint_name(attended.reshape(*x_BTD.shape[:2], config.q_dim), "attended")
    x_BTD = mesh.constrain(x_BTD + linear(merged, block.o_proj, block.o_bias), "B T D")
    x_BTD = checkpoint_name(x_BTD, "middle")
    normed = norm.rms_norm(x_BTD, block.post_norm, eps=config.norm_eps)
    gate_BTF = checkpoint_name(linear(normed, block.gate_proj, block.gate_bias), "gate")
    up_BTF = checkpoint_name(linear(normed, block.up_proj, block.up_bias), "up")
    if config.activation != "silu":
        raise ValueError(f"activation {config.activation!r} is unknown; known is silu")
    inner_BTF = mesh.constrain(jax.nn.silu(gate_BTF) * up_BTF, "B T F")
    return mesh.constrain(x_BTD + linear(inner_BTF, block.down_proj, block.down_bias), "B T D")


def _windows(config: ModelConfig) -> jax.Array | None:
    """Returns each layer's window [L], or None where no layer has one."""
    return jnp.asarray(config.windows, jnp.int32) if any(config.windows) else None


def _remat(step: Any, config: ModelConfig) -> Any:
    if config.remat == "none":
        return step
    if config.remat == "full":
        return jax.checkpoint(step, prevent_cse=False)
    if config.remat == "dots":
        policy = jax.checkpoint_policies.save_only_these_names(*SAVED, "logsum")
        return jax.checkpoint(step, prevent_cse=False, policy=policy)
    raise ValueError(f"remat {config.remat!r} is unknown; known are none, full, dots")


def hidden(
    params: Decoder,
    tokens_BT: jax.Array,
    config: ModelConfig,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
) -> jax.Array:
    """Returns the normed hidden states [B, T, D] from which the head predicts the next token.

    segments [B, T]: 0 is padding, 1.. are documents that do not see each other; None: one document a row.
    positions [B, T]: None restarts at 0 with every segment.
    """
    segments = jnp.ones_like(tokens_BT) if segments is None else segments
    positions = positions_of(segments) if positions is None else positions
    angles = _angles(positions, config)
    groups = (config.n_kv_heads, config.n_heads // config.n_kv_heads, config.head_dim)

    def step(x_BTD: jax.Array, layer: tuple[Block, jax.Array | None]) -> tuple[jax.Array, None]:
        block, window = layer
        q_BTNH, k_BTKH, v_BTKH = _qkv(x_BTD, block, angles, config)
        q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], *groups)
        scale = config.head_dim**-0.5
        attended = attention.attend(q_BTKGH, k_BTKH, v_BTKH, segments, window=window, scale=scale)
        return _after_attention(x_BTD, attended, block, config), None

    x_BTD = mesh.constrain(jnp.take(params.embed_tokens, tokens_BT, axis=0).astype(config.dtype), "B T D")
    layers = (params.blocks, _windows(config))
    x_BTD, _ = jax.lax.scan(_remat(step, config), x_BTD, layers, unroll=min(config.unroll, config.n_layers))
    return norm.rms_norm(x_BTD, params.norm, eps=config.norm_eps)


def _unembed(params: Decoder, hidden_BTD: jax.Array) -> jax.Array:
    if params.lm_head is None:
        weight = params.embed_tokens.astype(hidden_BTD.dtype)
        return jnp.einsum("BTD,VD->BTV", hidden_BTD, weight, preferred_element_type=jnp.float32)
    return matmul(hidden_BTD, params.lm_head).astype(jnp.float32)


def logits(
    params: Decoder,
    tokens: jax.Array,
    config: ModelConfig,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
) -> jax.Array:
    """Returns float32 logits [B, T, V]. For tests and short inputs: training goes through `logps`."""
    return _unembed(params, hidden(params, tokens, config, positions, segments))


def logps(
    params: Decoder,
    tokens: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    config: ModelConfig,
    positions: jax.Array | None,
    segments: jax.Array | None,
) -> token_logps.TokenLogps:
    """Returns log-probability, entropy and top-1 agreement of `targets` [B, T] where `weights` is not 0."""
    hidden_BTD = hidden(params, tokens, config, positions, segments)
    tied = params.lm_head is None
    head = params.embed_tokens if tied else params.lm_head
    return token_logps.token_logps(hidden_BTD, head, targets, weights, tied=tied)


def decode(
    params: Decoder, tokens_BT: jax.Array, valid_BT: jax.Array, kv: KVCache, config: ModelConfig
) -> tuple[jax.Array, KVCache]:
    """Returns the logits [B, V] after the last of T new tokens, and the cache with them in it.

    `valid_BT` is 0 for the left padding of a prompt. A token's position is the number of valid tokens before it.
    """
    length = tokens_BT.shape[1]
    valid = jax.lax.dynamic_update_slice(kv.valid, valid_BT.astype(jnp.int32), (0, kv.start))
    counted = jnp.cumsum(valid, axis=1) - valid
    angles = _angles(jax.lax.dynamic_slice_in_dim(counted, kv.start, length, axis=1), config)
    groups = (config.n_kv_heads, config.n_heads // config.n_kv_heads, config.head_dim)

    def step(carry: Any, layer: Any) -> tuple[Any, None]:
        x_BTD, k_LBSKH, v_LBSKH = carry
        index, block, window = layer
        q_BTNH, k_BTKH, v_BTKH = _qkv(x_BTD, block, angles, config)
        at = (index, 0, kv.start, 0, 0)
        k_LBSKH = jax.lax.dynamic_update_slice(k_LBSKH, k_BTKH[None].astype(k_LBSKH.dtype), at)
        v_LBSKH = jax.lax.dynamic_update_slice(v_LBSKH, v_BTKH[None].astype(v_LBSKH.dtype), at)
        q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], *groups)
        attend = functools.partial(attention.attend_cached, window=window, scale=config.head_dim**-0.5)
        attended = attend(q_BTKGH, k_LBSKH[index], v_LBSKH[index], valid, kv.start)
        return (_after_attention(x_BTD, attended, block, config), k_LBSKH, v_LBSKH), None

    x_BTD = jnp.take(params.embed_tokens, tokens_BT, axis=0).astype(config.dtype)
    layers = (jnp.arange(config.n_layers), params.blocks, _windows(config))
    (x_BTD, k, v), _ = jax.lax.scan(step, (x_BTD, kv.k, kv.v), layers)
    last_BTD = norm.rms_norm(x_BTD[:, -1:], params.norm, eps=config.norm_eps)
    return _unembed(params, last_BTD)[:, 0], KVCache(k=k, v=v, valid=valid, start=kv.start + length)
