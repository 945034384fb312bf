"""The one decoder of all families: embed -> scan of blocks -> norm -> head. It never mentions adapters or bits.

To add a mechanism: a field in `config.py`, a leaf in `params.py` if it has weights, one branch in `block.py`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ftjax import mesh
from ftjax.models import block
from ftjax.models.config import ModelConfig
from ftjax.models.params import Decoder
from ftjax.nn import attention, embedding, norm, token_logps
from ftjax.nn.cache import KVCache
from ftjax.nn.matmul import matmul


def positions_of(segments_BT: jax.Array) -> jax.Array:
    """Returns positions that restart at 0 with every segment, [B, T] int32."""
    index_BT = jnp.broadcast_to(jnp.arange(segments_BT.shape[1]), segments_BT.shape)
    previous = jnp.pad(segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    starts = jnp.where(segments_BT != previous, index_BT, 0)
    return (index_BT - jax.lax.cummax(starts, axis=1)).astype(jnp.int32)


def _remat(step: Any, config: ModelConfig) -> Any:
    if config.remat == "none":
        return step
    if config.remat == "full":
        return jax.checkpoint(step, prevent_cse=False)
    if config.remat == "dots":
        policy = jax.checkpoint_policies.save_only_these_names(*block.SAVED, "logsum")
        return jax.checkpoint(step, prevent_cse=False, policy=policy)
    raise ValueError(f"remat {config.remat!r} is unknown; known are none, full, dots")


def hidden(
    params: Decoder,
    tokens_BT: jax.Array,
    config: ModelConfig,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
    branches: jax.Array | None = None,
) -> jax.Array:
    """Returns the normed hidden states [B, T, D] from which the head predicts the next token.

    segments [B, T]: 0 is padding, 1.. are documents that do not see each other; None: one document a row.
    positions [B, T]: None restarts at 0 with every segment.
    branches [B, T]: continuations of one beginning (0) in a segment, which do not see each other; then positions must
    be given. None: there are none.
    """
    tokens_BT = jnp.asarray(tokens_BT)
    segments = jnp.ones_like(tokens_BT) if segments is None else jnp.asarray(segments)
    if branches is not None and positions is None:
        raise ValueError("hidden: branches have positions of their own; give positions")
    positions = positions_of(segments) if positions is None else jnp.asarray(positions)
    apart = None if branches is None else attention.Branches(jnp.asarray(branches), positions)
    tables = block.angles(positions, config)
    groups = (config.n_kv_heads, config.n_heads // config.n_kv_heads, config.head_dim)

    def step(x_BTD: jax.Array, layer: block.Layer) -> tuple[jax.Array, None]:
        q_BTNH, k_BTKH, v_BTKH = block.qkv(x_BTD, layer, tables, config)
        q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], *groups)
        scale, softcap = config.score_scale, config.attention_softcap
        attended = attention.attend(
            q_BTKGH, k_BTKH, v_BTKH, segments, branches=apart, window=layer.window, scale=scale, softcap=softcap
        )
        return block.after_attention(x_BTD, attended, layer, config), None

    x_BTD = mesh.constrain(_embed(params, tokens_BT, config), "B T D")
    layers = block.layers(params.blocks, config)
    x_BTD, _ = jax.lax.scan(_remat(step, config), x_BTD, layers, unroll=min(config.unroll, config.n_layers))
    return norm.rms_norm(x_BTD, params.norm, eps=config.norm_eps, offset=config.norm_offset)


def _embed(params: Decoder, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    # Ids travel to the slices of the table, and rows back: the table itself is not gathered.
    tokens_BT = mesh.constrain(tokens_BT, "B T", mesh.LOOKED_UP)
    x_BTD = embedding.embed(params.embed_tokens, tokens_BT).astype(config.dtype)
    x_BTD = mesh.constrain(x_BTD, "B T D", mesh.LOOKED_UP)
    return x_BTD if config.embed_scale == 1 else x_BTD * jnp.asarray(config.embed_scale, x_BTD.dtype)


def _unembed(params: Decoder, hidden_BTD: jax.Array, softcap: float) -> jax.Array:
    head, tied = embedding.head(params.lm_head, params.embed_tokens)
    logits_BTV = embedding.unembed(head, hidden_BTD) if tied else matmul(hidden_BTD, head).astype(jnp.float32)
    return softcap * jnp.tanh(logits_BTV / softcap) if softcap else logits_BTV


def logits(
    params: Decoder,
    tokens: jax.Array,
    config: ModelConfig,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
) -> jax.Array:
    """Returns float32 logits [B, T, V]. For tests and short inputs: training goes through `logps`."""
    return _unembed(params, hidden(params, tokens, config, positions, segments), config.logit_softcap)


def logps(
    params: Decoder,
    tokens: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    config: ModelConfig,
    positions: jax.Array | None,
    segments: jax.Array | None,
    branches: jax.Array | None = None,
    *,
    squares: bool = False,
) -> token_logps.TokenLogps:
    """Returns log-probability, entropy and top-1 agreement of `targets` [B, T] where `weights` is not 0.

    With `squares` also log sum_v p(v)^2 of each distribution over the next token.
    """
    hidden_BTD = hidden(params, tokens, config, positions, segments, branches)
    return logps_of_hidden(params, hidden_BTD, targets, weights, config, squares=squares)


def logps_of_hidden(
    params: Decoder, hidden_BTD: jax.Array, targets: jax.Array, weights: jax.Array, config: ModelConfig, *,
    squares: bool,
) -> token_logps.TokenLogps:  # fmt: skip
    """Returns what `logps` does, from hidden states that are there."""
    head, tied = embedding.head(params.lm_head, params.embed_tokens)
    return token_logps.token_logps(
        hidden_BTD, head, jnp.asarray(targets), jnp.asarray(weights),
        tied=tied, softcap=config.logit_softcap, squares=squares,
    )  # fmt: skip


def decode(
    params: Decoder, tokens_BT: jax.Array, valid_BT: jax.Array, kv: KVCache, config: ModelConfig
) -> tuple[jax.Array, KVCache]:
    """Returns the logits [B, V] after the last of T new tokens, and the cache with them in it.

    `valid_BT` is 0 for the left padding of a prompt. A token's position is the number of valid tokens before it.
    A cache that is `cache.by_layer` takes one token at a time, and is not for longrope.
    """
    length = tokens_BT.shape[1]
    valid = jax.lax.dynamic_update_slice(kv.valid, valid_BT.astype(jnp.int32), (0, kv.start))
    k: Any
    v: Any
    if isinstance(kv.k, tuple):
        last_BTD, k, v = _next(params, tokens_BT, kv, config)
        tokens = kv.tokens
    elif config.rope.kind != "longrope":
        last_BTD, k, v = _read(params, tokens_BT, valid, kv.k, kv.v, kv.start, config)
        tokens = kv.tokens
    else:
        tokens = jax.lax.dynamic_update_slice(kv.tokens, tokens_BT.astype(jnp.int32), (0, kv.start))
        again = lambda: _read_again(params, tokens, valid, kv.k, kv.v, kv.start + length - 1, config)
        go_on = lambda: _read(params, tokens_BT, valid, kv.k, kv.v, kv.start, config)
        before, after = jnp.max(jnp.sum(kv.valid, axis=1)), jnp.max(jnp.sum(valid, axis=1))
        limit = config.rope.original_max_position
        crossed = (before > 0) & (before <= limit) & (after > limit)
        last_BTD, k, v = jax.lax.cond(crossed, again, go_on)
    last_BTD = norm.rms_norm(last_BTD, params.norm, eps=config.norm_eps, offset=config.norm_offset)
    logits_BV = _unembed(params, last_BTD, config.logit_softcap)[:, 0]
    return logits_BV, KVCache(k=k, v=v, valid=valid, start=kv.start + length, tokens=tokens)


def _read(
    params: Decoder, tokens_BT: jax.Array, valid_BS: jax.Array, k: jax.Array, v: jax.Array, start: Any,
    config: ModelConfig, last: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """Returns the state after one token of T (None: the last), before the final norm, and keys and values with all."""
    counted = jnp.cumsum(valid_BS, axis=1) - valid_BS
    tables = block.angles(jax.lax.dynamic_slice_in_dim(counted, start, tokens_BT.shape[1], axis=1), config)
    groups = (config.n_kv_heads, config.n_heads // config.n_kv_heads, config.head_dim)
    attend = functools.partial(
        attention.attend_cached, scale=config.score_scale, softcap=config.attention_softcap
    )  # fmt: skip

    def step(carry: Any, indexed: tuple[jax.Array, block.Layer]) -> tuple[Any, None]:
        x_BTD, k_LBKSH, v_LBKSH = carry
        index, layer = indexed
        q_BTNH, k_BTKH, v_BTKH = block.qkv(x_BTD, layer, tables, config)
        at = (index, 0, 0, start, 0)
        by_head = lambda y_BTKH: y_BTKH.swapaxes(1, 2)[None]
        k_LBKSH = jax.lax.dynamic_update_slice(k_LBKSH, by_head(k_BTKH).astype(k_LBKSH.dtype), at)
        v_LBKSH = jax.lax.dynamic_update_slice(v_LBKSH, by_head(v_BTKH).astype(v_LBKSH.dtype), at)
        q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], *groups)
        attended = attend(q_BTKGH, k_LBKSH[index], v_LBKSH[index], valid_BS, start, window=layer.window)
        return (block.after_attention(x_BTD, attended, layer, config), k_LBKSH, v_LBKSH), None

    layers = (jnp.arange(config.n_layers), block.layers(params.blocks, config))
    (x_BTD, k, v), _ = jax.lax.scan(step, (_embed(params, tokens_BT, config), k, v), layers)
    return (x_BTD[:, -1:] if last is None else jax.lax.dynamic_slice_in_dim(x_BTD, last, 1, axis=1)), k, v


def _next(
    params: Decoder, tokens_B1: jax.Array, kv: KVCache, config: ModelConfig
) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Returns what `_read` does for one token, over a cache by layer.

    A layer's keys and values are read where they are: slicing them out of one array copies the whole cache for every
    token, which took as long as half of all matmuls (16 rows of 128 slots, 4 layers of width 256, on a core).
    """
    tables = block.angles(jnp.sum(kv.valid, axis=1, keepdims=True), config)
    groups = (config.n_kv_heads, config.n_heads // config.n_kv_heads, config.head_dim)

    def step(x_BTD: jax.Array, indexed: tuple[jax.Array, block.Layer]) -> tuple[jax.Array, Any]:
        index, layer = indexed
        q_BTNH, k_BTKH, v_BTKH = block.qkv(x_BTD, layer, tables, config)
        q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], *groups)

        def attend(keys: jax.Array, values: jax.Array) -> jax.Array:
            return attention.attend_next(
                q_BTKGH, k_BTKH, v_BTKH, keys, values, kv.valid, kv.start,
                window=layer.window, scale=config.score_scale, softcap=config.attention_softcap,
            )  # fmt: skip

        of_layers = [functools.partial(attend, *cached) for cached in zip(kv.k, kv.v, strict=True)]
        attended = jax.lax.switch(index, of_layers)
        return block.after_attention(x_BTD, attended, layer, config), (k_BTKH, v_BTKH)

    layers = (jnp.arange(config.n_layers), block.layers(params.blocks, config))
    x_BTD, made = jax.lax.scan(step, _embed(params, tokens_B1, config), layers)

    def put(cached: jax.Array, y_BTKH: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(cached, y_BTKH.swapaxes(1, 2).astype(cached.dtype), (0, 0, kv.start, 0))

    k, v = (tuple(map(put, old, new)) for old, new in zip((kv.k, kv.v), made, strict=True))
    return x_BTD, k, v


def _read_again(
    params: Decoder, tokens_BS: jax.Array, valid_BS: jax.Array, k: jax.Array, v: jax.Array, last: jax.Array,
    config: ModelConfig,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """Returns what `_read` does, with every token so far read anew.

    Beyond its training context longrope turns all positions by other angles, also those in the cache. transformers
    drops the cache of a Phi-3 there; the slots after `last` are empty, and causality hides them.
    """
    return _read(params, tokens_BS, valid_BS, k, v, jnp.int32(0), config, last)
