"""Prompts -> completions: one jitted program of prefill and decoding, over any base with any adapter."""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.errors import UserError
from ftjax.models import decoder
from ftjax.models.config import ModelConfig
from ftjax.nn import cache
from ftjax.sampling import warp


class Generated(NamedTuple):
    """Completions of a batch of prompts, all [B, N]."""

    tokens: jax.Array  # int32, 0 after the end of a row
    logps: jax.Array  # float32: log-probability under the distribution that was sampled from
    mask: jax.Array  # int32: 1 for generated tokens, the stop token included


class _Loop(NamedTuple):
    number: jax.Array  # of the token that the loop is about to write
    token_B: jax.Array
    logp_B: jax.Array
    done_B: jax.Array
    kv: cache.KVCache
    out: Generated


def left_pad(prompts: Sequence[Sequence[int]], multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens and validity [B, T], prompts at the right end, T rounded up so that few programs are compiled."""
    longest = max((len(p) for p in prompts), default=0)
    if not prompts or min(len(p) for p in prompts) == 0:
        raise UserError("every prompt needs at least one token; an empty one has nothing to continue")
    length = -(-longest // multiple) * multiple
    tokens, valid = np.zeros((len(prompts), length), np.int32), np.zeros((len(prompts), length), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = prompt
        valid[row, length - len(prompt) :] = 1
    return tokens, valid


def _sample(
    logits_BV: jax.Array,
    keys_B: jax.Array,
    count: jax.Array,
    heat: jax.Array | None,
    top_k: int,
    top_p: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Returns a token a row and its log-probability; without heat the most likely one, at log-probability 0."""
    if heat is None:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), jnp.zeros(logits_BV.shape[0], jnp.float32)
    warped = warp.top_k(warp.temperature(logits_BV, heat), k=top_k)
    warped = warped if top_p is None else warp.top_p(warped, top_p)
    draw = lambda key, row: jax.random.categorical(jax.random.fold_in(key, count), row)
    token_B = jax.vmap(draw)(keys_B, warped).astype(jnp.int32)
    logps_BV = jax.nn.log_softmax(warped, axis=-1)
    return token_B, jnp.take_along_axis(logps_BV, token_B[:, None], axis=-1)[:, 0]


@functools.partial(jax.jit, static_argnames=("config", "new", "top_k"))
def _generate(
    params: Any,
    tokens_BT: jax.Array,
    valid_BT: jax.Array,
    keys_B: jax.Array,
    stop_ids: jax.Array,
    heat: jax.Array | None,
    top_p: jax.Array | None,
    *,
    config: ModelConfig,
    new: int,
    top_k: int,
) -> Generated:
    rows, length = tokens_BT.shape
    kv = cache.init(
        layers=config.n_layers,
        batch=rows,
        slots=length + new,
        kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        dtype=config.dtype,
    )
    logits_BV, kv = decoder.decode(params, tokens_BT, valid_BT, kv, config)
    token_B, logp_B = _sample(logits_BV, keys_B, jnp.int32(0), heat, top_k, top_p)
    empty = jnp.zeros((rows, new), jnp.int32)
    out = Generated(tokens=empty, logps=jnp.zeros((rows, new), jnp.float32), mask=empty)

    def body(loop: _Loop) -> _Loop:
        live_B = ~loop.done_B
        out = Generated(
            tokens=loop.out.tokens.at[:, loop.number].set(jnp.where(live_B, loop.token_B, 0)),
            logps=loop.out.logps.at[:, loop.number].set(jnp.where(live_B, loop.logp_B, 0.0)),
            mask=loop.out.mask.at[:, loop.number].set(live_B.astype(jnp.int32)),
        )
        done_B = loop.done_B | jnp.any(loop.token_B[:, None] == stop_ids[None], axis=1)
        logits_BV, kv = decoder.decode(params, loop.token_B[:, None], jnp.ones((rows, 1), jnp.int32), loop.kv, config)
        count = loop.number + 1
        token_B, logp_B = _sample(logits_BV, keys_B, count, heat, top_k, top_p)
        return _Loop(count, token_B, logp_B, done_B, kv, out)

    start = _Loop(jnp.int32(0), token_B, logp_B, jnp.zeros(rows, bool), kv, out)
    return jax.lax.while_loop(lambda loop: (loop.number < new) & ~jnp.all(loop.done_B), body, start).out


def generate(
    params: Any,
    prompts: Sequence[Sequence[int]],
    key: jax.Array,
    config: ModelConfig,
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    stop_ids: Sequence[int],
) -> Generated:
    """Returns a completion for every prompt (lists of token ids, of unequal length).

    A row's sample depends on `key`, its row number and its own prompt, not on its neighbours. temperature 0 is greedy;
    top_k 0 and top_p 1 leave the distribution whole. A row ends with the first of `stop_ids`, which it keeps.
    """
    if max_new_tokens < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise UserError(
            f"max_new_tokens {max_new_tokens} must be >= 1, temperature {temperature} >= 0, top_k {top_k} >= 0 and "
            f"top_p {top_p} in (0, 1]"
        )
    tokens, valid = left_pad(prompts, 32)
    longest = int(valid.sum(axis=1).max())
    if longest + max_new_tokens > config.context:
        raise UserError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the context of {config.context}; "
            "shorten the prompt or lower max_new_tokens"
        )
    keys_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(prompts)))
    return _generate(
        params,
        jnp.asarray(tokens),
        jnp.asarray(valid),
        keys_B,
        jnp.asarray(tuple(stop_ids) or (-1,), jnp.int32),
        # Greedy decoding draws nothing, and a whole distribution is not sorted: that takes longer than the model does.
        jnp.float32(temperature) if temperature > 0 else None,
        jnp.float32(top_p) if top_p < 1 else None,
        config=config,
        new=max_new_tokens,
        top_k=top_k,
    )
