"""Logits -> the logits that are sampled from. To add a warp: one function here, one field of `Warps`, one argument.

`generate` applies them in the order of transformers: repetition penalty, temperature, top-k, top-p, min-p.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NEVER = -1e30  # finite, so that a probability is 0 and not NaN


class Warps(NamedTuple):
    """The numbers of the warps, each None where it is off. Numbers are data: another value is no other program."""

    heat: jax.Array | None  # float32 []: temperature; None is greedy decoding
    top_p: jax.Array | None  # float32 []
    min_p: jax.Array | None  # float32 []
    penalty: jax.Array | None  # float32 []: of tokens that the row has


def repetition_penalty(
    logits_BV: Float[Array, "B V"], seen_BV: Bool[Array, "B V"], penalty: Float[Array, ""]
) -> Float[Array, "B V"]:
    """Returns the logits with those of seen tokens divided by the penalty where positive, multiplied where negative.

    Keskar et al. 2019, section 4.1, in the form that made it work for negative logits (transformers).
    """
    return jnp.where(seen_BV, jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty), logits_BV)


def temperature(logits_BV: Float[Array, "B V"], value: Float[Array, ""]) -> Float[Array, "B V"]:
    """Returns logits / temperature; 0 is for the caller (greedy)."""
    return logits_BV / jnp.maximum(value, 1e-6)


def _kept(logits_BV: jax.Array, weights_BV: jax.Array, bound: Any) -> jax.Array:
    """Returns where the tokens of larger logits weigh less than the bound together, by bisection over all floats.

    The largest and its equals always stay. 32 passes take 0.4 ms for 16 rows of 4,096 on a core where sorting them
    took 11.
    """
    bits_BV = jax.lax.bitcast_convert_type(logits_BV, jnp.int32)
    order_BV = jnp.where(bits_BV < 0, bits_BV ^ 0x7FFFFFFF, bits_BV)  # integers in the order of the floats

    def closer(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends  # what is above low weighs the bound or more, what is above high less
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        less = jnp.sum(jnp.where(order_BV > middle, weights_BV, 0), axis=-1, keepdims=True) < bound
        return jnp.where(less, low, middle), jnp.where(less, middle, high)

    least, most = jnp.min(order_BV, axis=-1, keepdims=True), jnp.max(order_BV, axis=-1, keepdims=True)
    return order_BV >= jax.lax.fori_loop(0, 32, closer, (least - 1, most))[1]


def top_k(logits_BV: Float[Array, "B V"], *, k: int) -> Float[Array, "B V"]:
    """Returns the logits with all but the k largest (and their equals) excluded; k = 0 keeps all."""
    if k <= 0 or k >= logits_BV.shape[-1]:
        return logits_BV
    return jnp.where(_kept(logits_BV, jnp.ones_like(logits_BV), k), logits_BV, NEVER)


def top_p(logits_BV: Float[Array, "B V"], p: Float[Array, ""]) -> Float[Array, "B V"]:
    """Returns the logits with all excluded but the fewest tokens that hold probability p (Holtzman et al. 2020, eq. 2).

    As in transformers, a token stays while the mass of the tokens above it is below p; the first always stays.
    """
    return jnp.where(_kept(logits_BV, jax.nn.softmax(logits_BV, axis=-1), p), logits_BV, NEVER)


def min_p(logits_BV: Float[Array, "B V"], p: Float[Array, ""]) -> Float[Array, "B V"]:
    """Returns the logits without tokens less likely than p times the likeliest (Nguyen et al. 2024)."""
    threshold = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.log(p)
    return jnp.where(logits_BV < threshold, NEVER, logits_BV)


def first_largest(logits_BV: Float[Array, "B V"]) -> Int[Array, " B"]:
    """Returns the first token of the largest logit: argmax, in two passes that a CPU does 8 times as fast."""
    top_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    numbers_1V = jnp.arange(logits_BV.shape[-1], dtype=jnp.int32)[None]
    first_B = jnp.min(jnp.where(logits_BV == top_B1, numbers_1V, logits_BV.shape[-1]), axis=-1)
    return jnp.minimum(first_B, logits_BV.shape[-1] - 1)  # a row of NaN has no largest


def drawn(logits_BV: Float[Array, "B V"], uniform_B2: Float[Array, "B 2"]) -> Int[Array, " B"]:
    """Returns a token a row from softmax(logits), by two numbers in [0, 1): one picks a block of tokens, one in it.

    Two numbers a row, where the Gumbel trick needs one for each token of the vocabulary (a tenth of a step of
    decoding). One alone would pick among unlikely tokens by its last bits.
    """
    rows, vocabulary = logits_BV.shape
    size = 1 << math.ceil(math.log2(vocabulary) / 2)
    shares_BV = jnp.exp(logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True))
    shares_BNC = jnp.pad(shares_BV, ((0, 0), (0, -vocabulary % size))).reshape(rows, -1, size)

    def pick(shares_BX: jax.Array, uniform_B: jax.Array) -> jax.Array:
        sums_BX = jnp.cumsum(shares_BX, axis=-1)  # the first sum above u times the total is never one of a share of 0
        return jnp.sum(sums_BX <= uniform_B[:, None] * sums_BX[:, -1:], axis=-1, dtype=jnp.int32)

    block_B = pick(jnp.sum(shares_BNC, axis=-1), uniform_B2[:, 0])
    inside_BC = jnp.take_along_axis(shares_BNC, block_B[:, None, None], axis=1)[:, 0]
    return jnp.minimum(block_B * size + pick(inside_BC, uniform_B2[:, 1]), vocabulary - 1)


def sample(
    logits_BV: Float[Array, "B V"],
    keys_B: jax.Array,
    count_B: Int[Array, " B"],
    seen_BV: Bool[Array, "B V"] | None,
    warps: Warps,
    *,
    k: int,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Returns a token a row and its log-probability among the warped logits; greedily, the likeliest and 0.

    What a row draws depends on its key and on how many tokens it has (`count_B`), on nothing else.
    """
    if warps.penalty is not None and seen_BV is not None:
        logits_BV = repetition_penalty(logits_BV, seen_BV, warps.penalty)
    if warps.heat is None:
        return first_largest(logits_BV), jnp.zeros(logits_BV.shape[0], jnp.float32)
    logits_BV = top_k(temperature(logits_BV, warps.heat), k=k)
    logits_BV = logits_BV if warps.top_p is None else top_p(logits_BV, warps.top_p)
    logits_BV = logits_BV if warps.min_p is None else min_p(logits_BV, warps.min_p)
    uniform = lambda key, count: jax.random.uniform(jax.random.fold_in(key, count), (2,))
    token_B = drawn(logits_BV, jax.vmap(uniform)(keys_B, count_B))
    logps_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    return token_B, jnp.take_along_axis(logps_BV, token_B[:, None], axis=-1)[:, 0]
