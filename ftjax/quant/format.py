"""What a quantised weight owes, and the packing that the four-bit formats share.

A format is one file with a node and `quantize(weight, *, group)`. The node subclasses `flax.struct.PyTreeNode` and
`Quantized`, stands for one weight `[..., in, out]`, and has:

- `shape`: the shape of the weight that it stands for;
- `dequantize(dtype)`: the dense weight;
- `rows(index)`: some rows of a weight [in, out] (an embedding), which `Quantized` reads from the arrays as they are;
- array leaves that keep rank and axis order of the weight (an axis may be shorter, or 1), so that one PartitionSpec
  serves all of them, a scan over layers slices all of them, and no reshape merges a sharded axis with another.

A node that also subclasses `ByCode` says how one tile of it becomes dense, and then `nn/packed_dot.py` multiplies by it
without making the whole of it dense, where that is worth it.

Two codes share a byte along `in`: row 2k in the high nibble, row 2k + 1 in the low one. That is bitsandbytes' order
for its weight `[out, in]`, so its bytes are ours, transposed. Codes are `uint8`: int4 arrays take a byte an element on
the host, and orbax does not save uint4.
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8
import numpy as np


class Quantized:
    """The marker of a frozen weight in few bits: no state, no behaviour, only what a format owes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that this stands for."""
        raise AttributeError(f"{type(self).__name__} must say what shape it stands for")

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns the dense weight."""
        raise TypeError(f"{type(self).__name__} must say how it becomes dense {dtype}")

    def rows(self, index: Int[Array, "..."]) -> Float[Array, "... O"]:
        """Returns rows of a weight [in, out] in float32, without making the rest of it dense.

        An array with a row for every n rows of the weight has its row index // n for this one. What is picked so is the
        node of a weight of one row, or of the two that share a byte.
        """
        every = self.shape[-2]
        pick = lambda leaf: jnp.take(leaf, index // (every // leaf.shape[-2]), axis=0)[..., None, :]
        dense = jax.tree.map(pick, self).dequantize(jnp.float32)
        return jnp.take_along_axis(dense, (index % dense.shape[-2])[..., None, None], axis=-2)[..., 0, :]


def is_quantized(leaf: Any) -> bool:
    """True for a weight in few bits."""
    return isinstance(leaf, Quantized)


LookUp = Callable[[np.ndarray, jax.Array], jax.Array]  # (table, codes) -> the level of every code


class ByCode(Quantized):
    """A weight whose every number is a function of its code and of the terms of its group: any tile can be made alone.

    `dequantize` and the kernel of `nn/packed_dot.py` call the same methods, so a format is written once. They are
    elementwise jax.numpy that also holds inside of a kernel: broadcasting, arithmetic and selects, and no lookup but
    the one that is handed in.
    """

    codes: Any  # [..., in / p, out]: p codes of neighbouring rows in an element
    scales: Any

    @staticmethod
    def planes(codes: jax.Array) -> tuple[jax.Array, ...]:
        """Returns p arrays of the shape of `codes`: the k-th has the codes of rows k, p + k, 2p + k ..."""
        return (codes,)

    @staticmethod
    def level(codes: jax.Array, look_up: LookUp) -> jax.Array:
        """Returns what every code stands for before the terms of its group, float32: the code itself, if not said."""
        del look_up
        return codes.astype(jnp.float32)

    def terms(self) -> tuple[jax.Array, ...]:
        """Returns what the numbers of a group share, each float32 [..., in / group, out]."""
        return (self.scales,)

    @staticmethod
    def number(level: jax.Array, *terms: jax.Array) -> jax.Array:
        """Returns the numbers of levels, given the terms of their groups in a shape that broadcasts."""
        (scale,) = terms
        return level * scale


def pack(codes: UInt8[Array, "... I O"]) -> UInt8[Array, "... I/2 O"]:
    """Returns codes below 16 two in a byte along `in`."""
    return codes[..., 0::2, :] << 4 | codes[..., 1::2, :]


def unpack(packed: UInt8[Array, "... I/2 O"]) -> UInt8[Array, "... I O"]:
    """Returns the codes that `pack` packed."""
    both = jnp.stack(nibbles(packed), axis=-2)
    return both.reshape(*packed.shape[:-2], 2 * packed.shape[-2], packed.shape[-1])


def nibbles(packed: Array) -> tuple[Array, Array]:
    """Returns the codes of the rows 2k and those of the rows 2k + 1."""
    return packed >> 4, packed & 15


class FourBits(struct.PyTreeNode, ByCode):
    """What the four-bit formats share: packed codes and one scale a group."""

    codes: Any  # uint8 [..., in / 2, out]
    scales: Any  # float32 [..., in / group, out]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that this stands for."""
        *batch, half, columns = self.codes.shape
        return (*batch, 2 * half, columns)

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns the numbers, computed in float32 and then rounded to `dtype`."""
        level, terms = self.level(unpack(self.codes), look_up), self.terms()
        numbers = self.number(split(level, terms[0]), *(term[..., None, :] for term in terms))
        return numbers.reshape(level.shape).astype(dtype)

    @staticmethod
    def planes(codes: jax.Array) -> tuple[jax.Array, ...]:
        """Returns the codes of even rows and those of odd ones."""
        return nibbles(codes)


class Channels(struct.PyTreeNode, Quantized):
    """What the formats with one scale an output channel share."""

    codes: Any  # [..., in, out], of the format's own dtype
    scales: Any  # float32 [..., 1, out]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that this stands for."""
        return self.codes.shape

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns number times scale, multiplied in float32 and then rounded to `dtype`."""
        return (self.codes.astype(jnp.float32) * self.scales).astype(dtype)


def channel_levels(weight: Float[Array, "... I O"], *, name: str, largest: float, group: int) -> tuple[Array, Array]:
    """Returns (x / scale [..., I, O], scale [..., 1, O]) with the largest number of each channel at `largest`.

    Raises ValueError unless `group` is 0: there is one scale for all of `in`.
    """
    if group:
        raise ValueError(f"{name} has one scale an output channel, not groups of {group}; set the group to 0")
    weight = weight.astype(jnp.float32)
    scales = jnp.max(jnp.abs(weight), axis=-2, keepdims=True) / largest
    return weight * inverse(scales), scales


def look_up(table: np.ndarray, codes: Array) -> Array:
    """Returns the level of every code."""
    return jnp.take(jnp.asarray(table), codes.astype(jnp.int32), mode="clip")


def count_below(level: Array, thresholds: np.ndarray) -> UInt8[Array, "..."]:
    """Returns how many thresholds lie strictly below each level: its code, where codes ascend.

    A sum of comparisons fuses into one loop over the weight; a nearest-level search holds a distance for each level.
    """
    return sum(((level > t).astype(jnp.uint8) for t in thresholds), jnp.zeros(level.shape, jnp.uint8))


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


def split(levels: Float[Array, "... I O"], scales: Float[Array, "... N O"]) -> Float[Array, "... N g O"]:
    """Returns levels with `in` cut into the groups that the scales are of."""
    *batch, rows, columns = levels.shape
    groups = scales.shape[-2]
    return levels.reshape(*batch, groups, rows // groups, columns)


def absmax_levels(weight: Float[Array, "... I O"], group: int) -> tuple[Array, Array]:
    """Returns (x / absmax [..., N, g, O], absmax [..., N, O]) of each group, as bitsandbytes divides.

    The reciprocal is taken first and then multiplied: x * (1 / absmax) and x / absmax differ in the last bit, and that
    bit decides codes at a threshold.
    """
    groups = grouped(weight, group)
    absmax = jnp.max(jnp.abs(groups), axis=-2)
    return groups * inverse(absmax)[..., None, :], absmax


def inverse(scales: Array) -> Array:
    """Returns 1 / scales, and 0 for 0, so that a group of zeros stays one."""
    return jnp.where(scales == 0, 0.0, 1.0 / jnp.where(scales == 0, 1.0, scales))


def flatten(codes: Array) -> Array:
    """Returns codes [..., N, g, O] as [..., I, O]."""
    return codes.reshape(*codes.shape[:-3], codes.shape[-3] * codes.shape[-2], codes.shape[-1])


BLOCK = 256  # numbers that share a scale in the dynamic map


def dynamic_map(*, signed: bool) -> np.ndarray:
    """Returns the 256 levels of bitsandbytes' dynamic map, ascending, in [-1, 1] or in [0, 1] (Dettmers et al. 2022).

    Seven decades; the larger the number, the more levels its decade has.
    """
    positive = []
    for exponent in range(7):
        edges = np.linspace(0.1, 1, 2 ** (exponent + (0 if signed else 1)) + 1)
        positive += list((edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6))
    negative = [-level for level in positive] if signed else []
    return np.sort(np.array([*positive, *negative, 0.0, 1.0])).astype(np.float32)


def to_dynamic(x: Float[Array, "..."], axis: int, *, signed: bool) -> tuple[UInt8[Array, "..."], Float[Array, "..."]]:
    """Returns (codes of x, largest size of each block of 256 along `axis`); a last block may be shorter.

    A number goes to the nearest level of x / largest, and from the middle between two to the lower one.
    """
    table = dynamic_map(signed=signed)
    axis %= x.ndim
    size = x.shape[axis]
    blocks = -(-size // BLOCK)
    padded = jnp.pad(jnp.abs(x), [(0, blocks * BLOCK - size if a == axis else 0) for a in range(x.ndim)])
    largest = jnp.max(padded.reshape(*x.shape[:axis], blocks, BLOCK, *x.shape[axis + 1 :]), axis=axis + 1)
    level = x * inverse(_spread(largest, axis, size))
    codes = jnp.searchsorted(jnp.asarray((table[:-1] + table[1:]) / 2), level, side="left")
    return codes.astype(jnp.uint8), largest


def from_dynamic(
    codes: UInt8[Array, "..."], largest: Float[Array, "..."], axis: int, *, signed: bool
) -> Float[Array, "..."]:
    """Returns the numbers that `to_dynamic` made codes of, in float32."""
    return look_up(dynamic_map(signed=signed), codes) * _spread(largest, axis, codes.shape[axis])


def _spread(largest: Array, axis: int, size: int) -> Array:
    # A lookup, not a repeat that is cut off: the cut made shards along the axis exchange their scales. Of each number
    # by itself: XLA lays a lookup of whole slices out with the axis first, and what reads it goes across its rows.
    axis %= largest.ndim
    block = np.expand_dims(np.arange(size) // BLOCK, [a for a in range(largest.ndim) if a != axis])
    whole = tuple(size if a == axis else length for a, length in enumerate(largest.shape))
    return jnp.take_along_axis(largest, jnp.broadcast_to(block, whole), axis=axis)
