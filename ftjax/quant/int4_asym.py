"""INT4 with a zero point: 16 even steps from the smallest to the largest number of a group.

The zero point is a whole number, and the range always holds zero, so that zero stays zero. 4.625 bits a parameter in
groups of 64 (a float32 scale and a byte of zero point).
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax.quant import format as fmt

GROUP = 64
BITS = 4.0 + 40 / GROUP


class INT4Asym(struct.PyTreeNode, fmt.Quantized):
    """A weight [..., in, out] in INT4 with zero points."""

    codes: Any  # uint8 [..., in / 2, out]
    scales: Any  # float32 [..., in / group, out]
    zeros: Any  # uint8 [..., in / group, out]: the code of 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that this stands for."""
        return fmt.packed_shape(self.codes)

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns (code - zero) times scale, in float32 and then rounded to `dtype`."""
        codes = fmt.unpack(self.codes).astype(jnp.float32)
        *batch, rows, columns = codes.shape
        groups = self.scales.shape[-2]
        split = codes.reshape(*batch, groups, rows // groups, columns) - self.zeros[..., None, :].astype(jnp.float32)
        return (split * self.scales[..., None, :]).reshape(codes.shape).astype(dtype)


def quantize(weight: jax.Array, *, group: int) -> INT4Asym:
    """Returns a weight [..., in, out] in INT4 with zero points; raises ValueError where groups do not come out even."""
    split = fmt.grouped(weight, group)
    high = jnp.maximum(jnp.max(split, axis=-2), 0.0)
    low = jnp.minimum(jnp.min(split, axis=-2), 0.0)
    scales = (high - low) / 15
    zeros = jnp.clip(jnp.round(-low * fmt.inverse(scales)), 0, 15)
    codes = jnp.clip(jnp.round(split * fmt.inverse(scales)[..., None, :]) + zeros[..., None, :], 0, 15)
    return INT4Asym(codes=fmt.pack(fmt.flatten(codes.astype(jnp.uint8))), scales=scales, zeros=zeros.astype(jnp.uint8))
