"""Rows that are being completed, and the programs that take them further: read prompts, fill slots, decode, shift.

A slot is a row of the cache. All slots write their next token at the same place of the cache (one slice, no scatter);
a prompt that comes later is put so that it ends there. A position is the number of valid tokens before it, so where in
the cache a row lies changes nothing.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

from ftjax import mesh
from ftjax.models import decoder
from ftjax.models.config import ModelConfig
from ftjax.nn import backends, cache
from ftjax.sampling import warp

CACHE: Mapping[str, str] = {"k": "L B K S H", "v": "L B K S H", "valid": "B S", "tokens": "B S"}


class Rules(struct.PyTreeNode):
    """What is the same in every step of decoding."""

    warps: warp.Warps
    stop_ids: Any  # int32 [any], of NumPy or jax
    ignore_stop: Any  # bool []: a row goes on after a stop token
    top_k: int = struct.field(pytree_node=False)  # 0: off
    new: int = struct.field(pytree_node=False)  # tokens that a row gets at most


class Rows(NamedTuple):
    """Completions under way, one a slot."""

    token_B: jax.Array  # int32: the last token of each, which is not in the cache yet
    logp_B: jax.Array  # float32: its log-probability
    count_B: jax.Array  # int32: tokens that each has, that one included
    done_B: jax.Array  # bool: no token follows; so is a slot that holds nothing
    ended_B: jax.Array  # bool: there is a stop token among them
    keys_B: jax.Array
    seen_BV: jax.Array | None  # bool: tokens of prompt and completion; None without a penalty of repetition
    kv: cache.KVCache


class Columns(NamedTuple):
    """What some steps of decoding made, [B, steps + 1]; column 0 is the token that the rows came with."""

    tokens: jax.Array  # int32, 0 where the mask is
    logps: jax.Array  # float32
    mask: jax.Array  # int32


def _each(kv: cache.KVCache, change: Callable[..., jax.Array], *others: cache.KVCache) -> cache.KVCache:
    """Returns the cache with `change(array, .., its axis of rows, its axis of slots)` in place of every array."""

    def changed(name: str) -> Any:
        letters = CACHE[name].split()
        rows, slots = (
            letters.index("B") - len(letters),
            letters.index("S") - len(letters),
        )  # from the end, as L may lack
        parts = [getattr(one, name) for one in (kv, *others)]
        return jax.tree.map(lambda *arrays: change(*arrays, rows, slots), *parts)

    return kv.replace(**{name: changed(name) for name in CACHE})


def _laid_out(rows: Rows) -> Rows:
    """Returns the rows spread over the mesh as a batch is, so that every program gets them as the last one did."""
    lay = lambda name, x: mesh.constrain(x, " ".join(CACHE[name].split()[-x.ndim :]))
    kv = rows.kv.replace(**{name: jax.tree.map(functools.partial(lay, name), getattr(rows.kv, name)) for name in CACHE})
    names = ("token_B", "logp_B", "count_B", "done_B", "ended_B")
    seen_BV = None if rows.seen_BV is None else mesh.constrain(rows.seen_BV, "B V")
    return rows._replace(**{name: mesh.constrain(getattr(rows, name), "B") for name in names}, seen_BV=seen_BV, kv=kv)


def _flat(rows: Rows) -> dict[str, jax.Array]:
    """Returns the fields that are one array with the rows first."""
    return {name: getattr(rows, name) for name in Rows._fields if name != "kv" and getattr(rows, name) is not None}


def _cache(config: ModelConfig, rows: int, slots: int) -> cache.KVCache:
    return cache.init(
        layers=config.n_layers, batch=rows, slots=slots, kv_heads=config.n_kv_heads, head_dim=config.head_dim,
        dtype=config.dtype,
    )  # fmt: skip


def _arranged(kv: cache.KVCache, config: ModelConfig) -> cache.KVCache:
    """Returns the cache as single tokens are read into it fastest; longrope goes back to all of it at once."""
    return cache.by_layer(kv) if backends.cache_by_layer() and config.rope.kind != "longrope" else kv


def _read(
    params: Any, tokens_PT: jax.Array, valid_PT: jax.Array, config: ModelConfig
) -> tuple[jax.Array, cache.KVCache]:
    """Returns the logits after each prompt, and a cache that holds the prompts and nothing else."""
    tokens_PT, valid_PT = mesh.constrain(tokens_PT, "B T"), mesh.constrain(valid_PT, "B T")
    logits_PV, kv = decoder.decode(params, tokens_PT, valid_PT, _cache(config, *tokens_PT.shape), config)
    return logits_PV, _arranged(kv, config)


def _seen(tokens_PT: jax.Array, valid_PT: jax.Array, vocabulary: int) -> jax.Array:
    """Returns which tokens a prompt has, [P, V]."""
    rows_P1 = jnp.arange(tokens_PT.shape[0])[:, None]
    return jnp.zeros((tokens_PT.shape[0], vocabulary), bool).at[rows_P1, tokens_PT].max(valid_PT > 0)


def _drawn(rows: Rows, logits_BV: jax.Array, rules: Rules) -> Rows:
    """Returns the rows with one more token each, but for those that are done."""
    live_B = ~rows.done_B
    token_B, logp_B = warp.sample(logits_BV, rows.keys_B, rows.count_B, rows.seen_BV, rules.warps, k=rules.top_k)
    token_B = jnp.where(live_B, token_B, 0)
    count_B = rows.count_B + live_B
    ended_B = rows.ended_B | (live_B & jnp.any(token_B[:, None] == rules.stop_ids[None], axis=1))
    stopped_B = ended_B & ~rules.ignore_stop
    seen_BV = rows.seen_BV
    if seen_BV is not None:
        seen_BV = seen_BV.at[jnp.arange(token_B.shape[0]), token_B].max(live_B)
    return rows._replace(
        token_B=token_B, logp_B=jnp.where(live_B, logp_B, 0.0), count_B=count_B, ended_B=ended_B,
        done_B=rows.done_B | stopped_B | (count_B >= rules.new), seen_BV=seen_BV,
    )  # fmt: skip


def _keys(key: jax.Array, number_B: jax.Array) -> jax.Array:
    """Returns the key of each row by its number in the whole batch."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(number_B)


def _started(logits_BV: jax.Array, keys_B: jax.Array, seen_BV: jax.Array | None, kv: Any, rules: Rules) -> Rows:
    """Returns rows that have their first token."""
    none_B, no_B = jnp.zeros(logits_BV.shape[0], jnp.int32), jnp.zeros(logits_BV.shape[0], bool)
    rows = Rows(none_B, none_B.astype(jnp.float32), none_B, no_B, no_B, keys_B, seen_BV, kv)
    return _drawn(rows, logits_BV, rules)


@functools.partial(jax.jit, static_argnames=("config", "samples"))
def begin(
    params: Any,
    tokens_PT: jax.Array,
    valid_PT: jax.Array,
    key: jax.Array,
    rules: Rules,
    *,
    config: ModelConfig,
    samples: int,
) -> Rows:
    """Returns rows with their first token: `samples` of every prompt, side by side, for which it is read once."""
    logits_PV, kv = _read(params, tokens_PT, valid_PT, config)
    several = lambda x, axis: jnp.repeat(x, samples, axis=axis) if samples > 1 else x

    def roomy(x: jax.Array, rows: int, slots: int) -> jax.Array:
        return jnp.pad(several(x, rows), [(0, rules.new if axis == slots else 0) for axis in range(-x.ndim, 0)])

    kv = _each(kv, roomy)
    seen_BV = None
    if rules.warps.penalty is not None:
        seen_BV = several(_seen(tokens_PT, valid_PT, config.vocab_size), 0)
    logits_BV = several(logits_PV, 0)
    return _laid_out(_started(logits_BV, _keys(key, jnp.arange(logits_BV.shape[0])), seen_BV, kv, rules))


@functools.partial(jax.jit, static_argnames=("config", "steps"), donate_argnames="rows")
def advance(
    params: Any, rows: Rows, stopped_B: jax.Array, rules: Rules, *, config: ModelConfig, steps: int
) -> tuple[Rows, Columns]:
    """Returns the rows up to `steps` tokens further, and what they got; it ends early when all of them are done.

    `stopped_B` says which rows are done for a reason that the caller knows. The cache needs `steps` free places.
    """
    rows = rows._replace(done_B=rows.done_B | stopped_B)
    wide = lambda x_B: jnp.pad(x_B[:, None], ((0, 0), (0, steps)))
    columns = Columns(wide(rows.token_B), wide(rows.logp_B), wide(jnp.ones_like(rows.token_B)))

    def body(carry: tuple[jax.Array, Rows, Columns]) -> tuple[jax.Array, Rows, Columns]:
        step, rows, columns = carry
        live_B = ~rows.done_B
        logits_BV, kv = decoder.decode(
            params, rows.token_B[:, None], live_B.astype(jnp.int32)[:, None], rows.kv, config
        )
        rows = _drawn(rows._replace(kv=kv), logits_BV, rules)
        put = lambda x_BC, x_B: jax.lax.dynamic_update_slice(x_BC, x_B[:, None].astype(x_BC.dtype), (0, step))
        new = Columns(*map(put, columns, (rows.token_B, rows.logp_B, live_B)))
        return step + 1, rows, new

    going = lambda carry: (carry[0] <= steps) & ~jnp.all(carry[1].done_B)
    _, rows, columns = jax.lax.while_loop(going, body, (jnp.int32(1), rows, columns))
    return _laid_out(rows), columns


@functools.partial(jax.jit, static_argnames=("config", "rows", "slots"))
def empty(rules: Rules, key: jax.Array, start: jax.Array, *, config: ModelConfig, rows: int, slots: int) -> Rows:
    """Returns `rows` rows that hold nothing, with a cache of `slots` places of which the first `start` are passed."""
    none_B, done_B = jnp.zeros(rows, jnp.int32), jnp.ones(rows, bool)
    seen_BV = None if rules.warps.penalty is None else jnp.zeros((rows, config.vocab_size), bool)
    kv = _arranged(_cache(config, rows, slots), config).replace(start=start)
    keys_B = _keys(key, none_B)
    return _laid_out(Rows(none_B, none_B.astype(jnp.float32), none_B, done_B, ~done_B, keys_B, seen_BV, kv))


@functools.partial(jax.jit, static_argnames="config", donate_argnames="rows")
def fill(
    params: Any,
    rows: Rows,
    tokens_PT: jax.Array,
    valid_PT: jax.Array,
    source_B: jax.Array,
    number_B: jax.Array,
    key: jax.Array,
    rules: Rules,
    *,
    config: ModelConfig,
) -> Rows:
    """Returns the rows with new ones, which have their first token, where `source_B` names a prompt; -1 leaves a row.

    `number_B` are the numbers of all rows in the whole batch. The cache must have passed T places: a new prompt is put
    so that it ends where all write next.
    """
    logits_PV, kv = _read(params, tokens_PT, valid_PT, config)
    at_B, fresh_B = jnp.maximum(source_B, 0), source_B >= 0
    length, start = tokens_PT.shape[1], rows.kv.start

    def pick(new: jax.Array, old: jax.Array, axis: int) -> jax.Array:
        return jnp.where(jnp.expand_dims(fresh_B, [n for n in range(-old.ndim, 0) if n != axis]), new, old)

    def placed(whole: jax.Array, new: jax.Array, by_row: int, by_slot: int) -> jax.Array:
        part = jax.lax.dynamic_slice_in_dim(whole, start - length, length, axis=by_slot)
        part = pick(jnp.take(new, at_B, axis=by_row), part, by_row)
        return jax.lax.dynamic_update_slice_in_dim(whole, part, start - length, axis=by_slot)

    rows = rows._replace(kv=rows.kv.replace(valid=jnp.where(fresh_B[:, None], 0, rows.kv.valid)))
    seen_BV = None if rows.seen_BV is None else _seen(tokens_PT, valid_PT, config.vocab_size)[at_B]
    made = _started(logits_PV[at_B], _keys(key, number_B), seen_BV, None, rules)
    flat = {name: pick(getattr(made, name), old, -old.ndim) for name, old in _flat(rows).items()}
    return _laid_out(rows._replace(**flat, kv=_each(rows.kv, placed, kv)))


@functools.partial(jax.jit, donate_argnames="rows")
def shift(rows: Rows, places: jax.Array) -> Rows:
    """Returns the rows with their caches moved so many places to the beginning; what falls off must not be valid."""
    kv = _each(rows.kv, lambda x, _, by_slot: jnp.roll(x, -places, axis=by_slot))
    start = kv.start - places
    behind_S = jnp.arange(kv.valid.shape[1]) >= start
    return _laid_out(rows._replace(kv=kv.replace(valid=jnp.where(behind_S[None], 0, kv.valid), start=start)))


@jax.jit
def chosen(rows: Rows, index: jax.Array) -> Rows:
    """Returns some of the rows, those at `index`."""
    take = lambda x, axis: jnp.take(x, index, axis=axis)
    flat = {name: take(x, 0) for name, x in _flat(rows).items()}
    return _laid_out(rows._replace(**flat, kv=_each(rows.kv, lambda x, by_row, _: take(x, by_row))))
