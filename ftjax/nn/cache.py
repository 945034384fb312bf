"""The keys and values of tokens already read, for decoding one token at a time."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp


class KVCache(struct.PyTreeNode):
    """Slots 0 .. S-1 of every layer; slot i holds the i-th token of each row, rows being left-padded to one length."""

    k: Any  # [L, B, K, S, H], as attention's two products read it, without a transposed copy; or L arrays of a layer
    v: Any  # the same
    valid: jax.Array  # int32 [B, S]: 1 where a real token stands
    start: jax.Array  # int32 []: the next free slot, the same for all rows
    tokens: jax.Array  # int32 [B, S]: what was read; only longrope keeps it, which reads all again when it grows long


def init(*, layers: int, batch: int, slots: int, kv_heads: int, head_dim: int, dtype: jax.typing.DTypeLike) -> KVCache:
    """Returns an empty cache."""
    zeros = jnp.zeros((layers, batch, kv_heads, slots, head_dim), dtype)
    empty = jnp.zeros((batch, slots), jnp.int32)
    return KVCache(k=zeros, v=zeros, valid=empty, start=jnp.zeros((), jnp.int32), tokens=empty)


def by_layer(kv: KVCache) -> KVCache:
    """Returns the cache with an array for every layer, of which one can be read without being sliced out of all."""
    apart = lambda x: tuple(x[layer] for layer in range(x.shape[0]))
    return kv.replace(k=apart(kv.k), v=apart(kv.v))
