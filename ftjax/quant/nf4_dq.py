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

BLOCK = 256
GROUP = 64
BITS = 4.0 + 8 / GROUP + 32 / (GROUP * BLOCK)


def dynamic_map() -> np.ndarray:
    """Returns the 256 levels of bitsandbytes' signed dynamic map, ascending (Dettmers et al. 2022, 8-bit Adam)."""
    positive = []
    for exponent in range(7):
        edges = np.linspace(0.1, 1, 2**exponent + 1)
        positive += list((edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6))
    return np.sort(np.array([*positive, *(-p for p in positive), 0.0, 1.0])).astype(np.float32)


class NF4DQ(fmt.FourBits):
    """A weight [..., in, out] in NF4 whose scales are uint8: codes of the dynamic map."""

    nested: Any  # float32 [..., in / group, ceil(out / 256)]: largest |scale - offset| of each block
    offset: Any  # float32 [..., 1, 1]: mean of the scales

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns level times dequantised scale, in float32 and then rounded to `dtype`."""
        return fmt.scaled(nf4.levels(self.codes), self.absmax(), dtype)

    def absmax(self) -> jax.Array:
        """Returns the scales as float32 [..., in / group, out]."""
        return fmt.look_up(dynamic_map(), self.scales) * _spread(self.nested, self.scales.shape[-1]) + self.offset


def _spread(nested: jax.Array, columns: int) -> jax.Array:
    return jnp.repeat(nested, BLOCK, axis=-1)[..., :columns]


def quantize(weight: jax.Array, *, group: int) -> NF4DQ:
    """Returns a weight [..., in, out] in NF4-DQ; raises ValueError where `in` does not split into groups."""
    return nest(nf4.quantize(weight, group=group))


def nest(plain: nf4.NF4) -> NF4DQ:
    """Returns the same codes with scales in 8 bits."""
    offset = jnp.mean(plain.scales, axis=(-2, -1), keepdims=True)
    rest = plain.scales - offset
    columns = rest.shape[-1]
    blocks = -(-columns // BLOCK)
    padded = jnp.pad(jnp.abs(rest), [(0, 0)] * (rest.ndim - 1) + [(0, blocks * BLOCK - columns)])
    nested = jnp.max(padded.reshape(*rest.shape[:-1], blocks, BLOCK), axis=-1)
    level = rest * fmt.inverse(_spread(nested, columns))
    table = dynamic_map()
    codes = jnp.searchsorted(jnp.asarray((table[:-1] + table[1:]) / 2), level, side="left")
    return NF4DQ(codes=plain.codes, scales=codes.astype(jnp.uint8), nested=nested, offset=offset)
