"""INT4: whole numbers -8..7 times a signed float32 scale a group, no zero point (llama.cpp's Q4_0 rule).

The number of largest size, with its sign, becomes -8: so all 16 codes are used, where -7..7 leaves one out (mean
squared error on normal weights, groups of 64: 0.0090 against 0.0116).
"""

import jax
import jax.numpy as jnp

from ftjax.quant import format as fmt

GROUP = 64
BITS = 4.0 + 32 / GROUP


class INT4(fmt.FourBits):
    """A weight [..., in, out] in INT4: codes are the number + 8, scales are of either sign."""

    @staticmethod
    def level(codes: jax.Array, look_up: fmt.LookUp) -> jax.Array:
        """Returns the number that a code stands for."""
        del look_up
        return codes.astype(jnp.float32) - 8


def quantize(weight: jax.Array, *, group: int) -> INT4:
    """Returns a weight [..., in, out] in INT4; raises ValueError where `in` does not split into groups."""
    groups = fmt.grouped(weight, group)
    high, low = jnp.max(groups, axis=-2), jnp.min(groups, axis=-2)
    scales = jnp.where(high > -low, high, low) / -8
    number = jnp.clip(jnp.round(groups * fmt.inverse(scales)[..., None, :]), -8, 7)
    return INT4(codes=fmt.pack(fmt.flatten((number + 8).astype(jnp.uint8))), scales=scales)
