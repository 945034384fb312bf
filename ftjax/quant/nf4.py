"""NF4: 16 levels at quantiles of a normal, one float32 scale a group (Dettmers et al. 2023, section 3, appendix E).

4.5 bits a parameter in groups of 64. Codes, scales and the dequantised weights equal bitsandbytes' to the bit.
"""

import jax
import numpy as np

from ftjax.quant import format as fmt

# fmt: off
LEVELS = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)
# A level's code is the number of thresholds strictly below it; they are bitsandbytes' constants, midpoints in float32.
THRESHOLDS = np.array([
    -0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544, -0.23460740596055984,
    -0.13791173323988914, -0.045525018125772476, 0.03979014977812767, 0.1202552504837513, 0.2035212516784668,
    0.2920137718319893, 0.3893125355243683, 0.5016634166240692, 0.6427869200706482, 0.8614784181118011,
], np.float32)
# fmt: on
GROUP = 64
BITS = 4.0 + 32 / GROUP


class NF4(fmt.FourBits):
    """A weight [..., in, out] in NF4."""

    @staticmethod
    def level(codes: jax.Array, look_up: fmt.LookUp) -> jax.Array:
        """Returns the level of every code."""
        return look_up(LEVELS, codes)


def quantize(weight: jax.Array, *, group: int) -> NF4:
    """Returns a weight [..., in, out] in NF4; raises ValueError where `in` does not split into groups."""
    level, absmax = fmt.absmax_levels(weight, group)
    return NF4(codes=fmt.pack(fmt.flatten(fmt.count_below(level, THRESHOLDS))), scales=absmax)
