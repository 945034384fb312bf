"""INT4 with a zero point: 16 even steps from the smallest to the largest number of a group.

The zero point is a whole number, and the range always holds zero, so that zero stays zero. 4.625 bits a parameter in
groups of 64 (a float32 scale and a byte of zero point).
"""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.quant import format as fmt

GROUP = 64
BITS = 4.0 + 40 / GROUP


class INT4Asym(fmt.FourBits):
    """A weight [..., in, out] in INT4 with zero points."""

    zeros: Any  # uint8 [..., in / group, out]: the code of 0

    def terms(self) -> tuple[jax.Array, ...]:
        """Returns scales and zero points."""
        return self.scales, self.zeros.astype(jnp.float32)

    @staticmethod
    def number(level: jax.Array, *terms: jax.Array) -> jax.Array:
        """Returns (code - zero) times scale."""
        scale, zero = terms
        return (level - zero) * scale


def quantize(weight: jax.Array, *, group: int) -> INT4Asym:
    """Returns a weight [..., in, out] in INT4 with zero points; raises ValueError where groups do not come out even."""
    groups = fmt.grouped(weight, group)
    high = jnp.maximum(jnp.max(groups, axis=-2), 0.0)
    low = jnp.minimum(jnp.min(groups, axis=-2), 0.0)
    scales = (high - low) / 15
    zeros = jnp.clip(jnp.round(-low * fmt.inverse(scales)), 0, 15)
    codes = jnp.clip(jnp.round(groups * fmt.inverse(scales)[..., None, :]) + zeros[..., None, :], 0, 15)
    return INT4Asym(codes=fmt.pack(fmt.flatten(codes.astype(jnp.uint8))), scales=scales, zeros=zeros.astype(jnp.uint8))
