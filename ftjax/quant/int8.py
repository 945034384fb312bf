"""INT8: whole numbers -127..127 times one float32 scale an output channel."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax.quant import format as fmt

GROUP = 0  # one scale for all of `in`
BITS = 8.0


class INT8(struct.PyTreeNode, fmt.Quantized):
    """A weight [..., in, out] in INT8."""

    codes: Any  # int8 [..., in, out]
    scales: Any  # float32 [..., 1, out]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that this stands for."""
        return self.codes.shape

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns number times scale, multiplied in float32 and then rounded to `dtype`."""
        return (self.codes.astype(jnp.float32) * self.scales).astype(dtype)


def quantize(weight: jax.Array, *, group: int) -> INT8:
    """Returns a weight [..., in, out] in INT8; `group` must be 0, one scale a channel."""
    if group:
        raise ValueError(f"int8 has one scale an output channel, not groups of {group}; set the group to 0")
    weight = weight.astype(jnp.float32)
    scales = jnp.max(jnp.abs(weight), axis=-2, keepdims=True) / 127
    codes = jnp.round(weight * fmt.inverse(scales))
    return INT8(codes=jnp.clip(codes, -127, 127).astype(jnp.int8), scales=scales)
