"""Logits -> the logits that are sampled from. To add a warp: one function here, one argument of `generate`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NEVER = -1e30  # finite, so that a probability is 0 and not NaN


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
