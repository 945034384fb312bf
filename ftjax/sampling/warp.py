"""Logits -> the logits that are sampled from. To add a warp: one function here, one field of `Warps`, one argument.

`generate` applies them in the order of transformers: repetition penalty, temperature, top-k, top-p, min-p.
"""

from typing import NamedTuple

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


def top_k(logits_BV: Float[Array, "B V"], *, k: int) -> Float[Array, "B V"]:
    """Returns the logits with all but the k largest (and their equals) excluded; k = 0 keeps all."""
    if k <= 0 or k >= logits_BV.shape[-1]:
        return logits_BV
    threshold = jax.lax.top_k(logits_BV, k)[0][:, -1:]
    return jnp.where(logits_BV < threshold, NEVER, logits_BV)


def top_p(logits_BV: Float[Array, "B V"], p: Float[Array, ""]) -> Float[Array, "B V"]:
    """Returns the logits with all excluded but the fewest tokens that hold probability p (Holtzman et al. 2020, eq. 2).

    As in transformers, a token stays while the mass of the tokens above it is below p; the first always stays.
    """
    sorted_BV = jnp.flip(jnp.sort(logits_BV, axis=-1), axis=-1)
    probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    kept = jnp.sum(before_BV < p, axis=-1, keepdims=True)
    threshold = jnp.take_along_axis(sorted_BV, jnp.maximum(kept, 1) - 1, axis=-1)
    return jnp.where(logits_BV < threshold, NEVER, logits_BV)


def min_p(logits_BV: Float[Array, "B V"], p: Float[Array, ""]) -> Float[Array, "B V"]:
    """Returns the logits with all excluded whose probability is below p times the largest (Nguyen et al. 2024, eq. 3)."""
    threshold = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.log(p)
    return jnp.where(logits_BV < threshold, NEVER, logits_BV)


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
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), jnp.zeros(logits_BV.shape[0], jnp.float32)
    logits_BV = top_k(temperature(logits_BV, warps.heat), k=k)
    logits_BV = logits_BV if warps.top_p is None else top_p(logits_BV, warps.top_p)
    logits_BV = logits_BV if warps.min_p is None else min_p(logits_BV, warps.min_p)
    draw = lambda key, count, row: jax.random.categorical(jax.random.fold_in(key, count), row)
    token_B = jax.vmap(draw)(keys_B, count_B, logits_BV).astype(jnp.int32)
    logps_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    return token_B, jnp.take_along_axis(logps_BV, token_B[:, None], axis=-1)[:, 0]
