"""FP8 (e4m3): the device's own 8-bit float times one float32 scale an output channel (Micikevicius et al. 2022)."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax.quant import format as fmt

GROUP = 0  # one scale for all of `in`
BITS = 8.0
LARGEST = 448.0


class FP8(struct.PyTreeNode, fmt.Quantized):
    """A weight [..., in, out] in FP8."""

    codes: Any  # float8_e4m3fn [..., in, out]
    scales: Any  # float32 [..., 1, out]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that this stands for."""
        return self.codes.shape

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns number times scale, multiplied in float32 and then rounded to `dtype`."""
        return (self.codes.astype(jnp.float32) * self.scales).astype(dtype)


def quantize(weight: jax.Array, *, group: int) -> FP8:
    """Returns a weight [..., in, out] in FP8; `group` must be 0, one scale a channel."""
    if group:
        raise ValueError(f"fp8 has one scale an output channel, not groups of {group}; set the group to 0")
    weight = weight.astype(jnp.float32)
    scales = jnp.max(jnp.abs(weight), axis=-2, keepdims=True) / LARGEST
    return FP8(codes=(weight * fmt.inverse(scales)).astype(jnp.float8_e4m3fn), scales=scales)
