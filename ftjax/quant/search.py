"""Scale search: each group is clipped where that lowers its squared error, whatever the format.

Most numbers of a group are far below its largest one, which sets the scale. Clipped to a share of that, it loses some
and all the others gain. The codes are then no longer those that the format gives the same weight, so where codes are
promised to equal bitsandbytes' this is never done unasked.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SHARES = np.linspace(1.0, 0.6, 21, dtype=np.float32)  # of the largest number; the first changes nothing


def clipped(weight: jax.Array, *, quantise: Callable[[jax.Array], Any], group: int) -> jax.Array:
    """Returns a matrix [in, out] whose groups (0: whole columns) are clipped to the best of `SHARES`, in float32."""
    weight = weight.astype(jnp.float32)
    rows, columns = weight.shape
    split = lambda dense: dense.reshape(-1, group or rows, columns)
    groups = split(weight)
    size = jnp.max(jnp.abs(groups), axis=1, keepdims=True)
    clip = lambda share: jnp.clip(groups, -share * size, share * size).reshape(weight.shape)

    def once(carry: tuple[jax.Array, jax.Array], share: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        least, best = carry
        dense = quantise(clip(share)).dequantize(jnp.float32)
        error = jnp.sum((split(dense) - groups) ** 2, axis=1, keepdims=True)
        return (jnp.minimum(error, least), jnp.where(error < least, share, best)), None

    start = (jnp.full_like(size, jnp.inf), jnp.ones_like(size))
    (_, best), _ = jax.lax.scan(once, start, jnp.asarray(SHARES))
    return clip(best)
