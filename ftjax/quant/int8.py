"""INT8: whole numbers -127..127 times one float32 scale an output channel."""

import jax
import jax.numpy as jnp

from ftjax.quant import format as fmt

GROUP = 0  # one scale for all of `in`
BITS = 8.0


class INT8(fmt.Channels, fmt.ByCode):
    """A weight [..., in, out] in INT8: codes are int8."""


def quantize(weight: jax.Array, *, group: int) -> INT8:
    """Returns a weight [..., in, out] in INT8; `group` must be 0, one scale a channel."""
    level, scales = fmt.channel_levels(weight, name="int8", largest=127, group=group)
    return INT8(codes=jnp.clip(jnp.round(level), -127, 127).astype(jnp.int8), scales=scales)
