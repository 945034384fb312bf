"""NF4 with double quantisation: the scales themselves in 8 bits (Dettmers et al. 2023, section 3).

The scales of a weight, less their mean, go into bitsandbytes' signed dynamic 8-bit map in blocks of 256 along `out`
(bitsandbytes takes its blocks from the flattened weight, which no PartitionSpec can follow): 4 + 8/64 + 32/(64 * 256) =
4.127 bits a parameter, and one float32 offset for each layer.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.quant import format as fmt
from ftjax.quant import nf4

GROUP = 64
BITS = 4.0 + 8 / GROUP + 32 / (GROUP * fmt.BLOCK)


def dynamic_map() -> np.ndarray:
    """Returns the levels of the scales: bitsandbytes' signed dynamic map, ascending."""
    return fmt.dynamic_map(signed=True)


class NF4DQ(fmt.FourBits):
    """A weight [..., in, out] in NF4 whose scales are uint8: codes of the dynamic map."""

    nested: Any  # float32 [..., in / group, ceil(out / 256)]: largest |scale - offset| of each block
    offset: Any  # float32 [..., 1, 1]: mean of the scales

    @staticmethod
    def level(codes: jax.Array, look_up: fmt.LookUp) -> jax.Array:
        """Returns the level of every code."""
        return look_up(nf4.LEVELS, codes)

    def terms(self) -> tuple[jax.Array, ...]:
        """Returns the dequantised scales."""
        return (self.absmax(),)

    def absmax(self) -> jax.Array:
        """Returns the scales as float32 [..., in / group, out]."""
        return fmt.from_dynamic(self.scales, self.nested, -1, signed=True) + self.offset


def quantize(weight: jax.Array, *, group: int) -> NF4DQ:
    """Returns a weight [..., in, out] in NF4-DQ; raises ValueError where `in` does not split into groups."""
    return nest(nf4.quantize(weight, group=group))


def nest(plain: nf4.NF4) -> NF4DQ:
    """Returns the same codes with scales in 8 bits."""
    offset = jnp.mean(plain.scales, axis=(-2, -1), keepdims=True)
    codes, nested = fmt.to_dynamic(plain.scales - offset, -1, signed=True)
    return NF4DQ(codes=plain.codes, scales=codes, nested=nested, offset=offset)
