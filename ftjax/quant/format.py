"""What a quantised weight owes, and the packing that the four-bit formats share.

A format is one file with a node and `quantize(weight, *, group)`. The node subclasses `flax.struct.PyTreeNode` and
`Quantized`, stands for one weight `[..., in, out]`, and has:

- `shape`: the shape of the weight that it stands for;
- `dequantize(dtype)`: the dense weight;
- array leaves that keep rank and axis order of the weight (an axis may be shorter, or 1), so that one PartitionSpec
  serves all of them, a scan over layers slices all of them, and no reshape merges a sharded axis with another.

Two codes share a byte along `in`: row 2k in the high nibble, row 2k + 1 in the low one. That is bitsandbytes' order
for its weight `[out, in]`, so its bytes are ours, transposed. Codes are `uint8`: int4 arrays take a byte an element on
the host, and orbax does not save uint4.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


class Quantized:
    """The marker of a frozen weight in few bits: no state, no behaviour, only what a format owes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that this stands for."""
        raise AttributeError(f"{type(self).__name__} must say what shape it stands for")

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns the dense weight."""
        raise TypeError(f"{type(self).__name__} must say how it becomes dense {dtype}")


def is_quantized(leaf: Any) -> bool:
    """True for a weight in few bits."""
    return isinstance(leaf, Quantized)


def pack(codes: UInt8[Array, "... I O"]) -> UInt8[Array, "... I/2 O"]:
    """Returns codes below 16 two in a byte along `in`."""
    return codes[..., 0::2, :] << 4 | codes[..., 1::2, :]


def unpack(packed: UInt8[Array, "... I/2 O"]) -> UInt8[Array, "... I O"]:
    """Returns the codes that `pack` packed."""
    both = jnp.stack([packed >> 4, packed & 15], axis=-2)
    return both.reshape(*packed.shape[:-2], 2 * packed.shape[-2], packed.shape[-1])


def packed_shape(packed: jax.Array) -> tuple[int, ...]:
    """Returns the shape of the weight whose packed codes these are."""
    return (*packed.shape[:-2], 2 * packed.shape[-2], packed.shape[-1])


def grouped(weight: Float[Array, "... I O"], group: int) -> Float[Array, "... N g O"]:
    """Returns the weight in float32 with `in` cut into groups; raises ValueError where they do not come out even."""
    *batch, rows, columns = weight.shape
    check_group(rows, group)
    return weight.astype(jnp.float32).reshape(*batch, rows // group, group, columns)


def check_group(rows: int, group: int) -> None:
    """Raises ValueError where `rows` inputs do not split into whole, even groups."""
    if group < 2 or group % 2 or rows % group:
        fits = [g for g in (16, 32, 48, 64, 96, 128, 256) if rows % g == 0]
        raise ValueError(
            f"{rows} input rows do not split into even groups of {group}; "
            f"{'groups that do: ' + ', '.join(map(str, fits)) if fits else 'no usual group does: keep it dense'}"
        )


def scaled(levels: Float[Array, "... I O"], scales: Float[Array, "... N O"], dtype: Any) -> Array:
    """Returns levels times the scale of their group, multiplied in float32."""
    *batch, rows, columns = levels.shape
    groups = scales.shape[-2]
    split = levels.reshape(*batch, groups, rows // groups, columns)
    return (split * scales[..., None, :]).reshape(levels.shape).astype(dtype)


def absmax_levels(weight: Float[Array, "... I O"], group: int) -> tuple[Array, Array]:
    """Returns (x / absmax [..., N, g, O], absmax [..., N, O]) of each group, as bitsandbytes divides.

    The reciprocal is taken first and then multiplied: x * (1 / absmax) and x / absmax differ in the last bit, and that
    bit decides codes at a threshold.
    """
    split = grouped(weight, group)
    absmax = jnp.max(jnp.abs(split), axis=-2)
    return split * inverse(absmax)[..., None, :], absmax


def inverse(scales: Array) -> Array:
    """Returns 1 / scales, and 0 for 0, so that a group of zeros stays one."""
    return jnp.where(scales == 0, 0.0, 1.0 / jnp.where(scales == 0, 1.0, scales))


def flatten(codes: Array) -> Array:
    """Returns codes [..., N, g, O] as [..., I, O]."""
    return codes.reshape(*codes.shape[:-3], codes.shape[-3] * codes.shape[-2], codes.shape[-1])
