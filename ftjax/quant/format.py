"""What a weight can be to a tree function, and what a quantised format owes.

A format is one file with a node and a `quantize` function. The node subclasses `flax.struct.PyTreeNode` and
`Quantized`, stands for one weight `[..., in, out]`, and has:

- `shape`: the shape of the weight that it stands for;
- `dequantize(dtype)`: the dense weight;
- array leaves that keep rank and axis order of the weight, so one PartitionSpec serves all of them.
"""

from typing import Any

import jax


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
