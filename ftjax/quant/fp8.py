"""FP8 (e4m3): the device's own 8-bit float times one float32 scale an output channel (Micikevicius et al. 2022)."""

import jax
import jax.numpy as jnp

from ftjax.quant import format as fmt

GROUP = 0  # one scale for all of `in`
BITS = 8.0
LARGEST = 448.0


class FP8(fmt.Channels):
    """A weight [..., in, out] in FP8: codes are float8_e4m3fn."""


def quantize(weight: jax.Array, *, group: int) -> FP8:
    """Returns a weight [..., in, out] in FP8; `group` must be 0, one scale a channel."""
    level, scales = fmt.channel_levels(weight, name="fp8", largest=LARGEST, group=group)
    return FP8(codes=level.astype(jnp.float8_e4m3fn), scales=scales)
