"""What a weight in few bits costs: the bytes that it takes, and its error against the dense one."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ftjax import tree
from ftjax.quant import convert


class Error(NamedTuple):
    """The error of a matrix, or of several: sums that add up, and a largest one."""

    squares: float  # of what it is off
    weight: float  # squares of the dense weight
    largest: float

    @property
    def relative_rms(self) -> float:
        """Root of the mean squared error over that of the weight."""
        return math.sqrt(self.squares / self.weight) if self.weight else 0.0


@jax.jit
def _error(dense: jax.Array, node: Any) -> tuple[jax.Array, ...]:
    dense = dense.astype(jnp.float32)
    off = node.dequantize(jnp.float32) - dense
    return jnp.sum(off**2), jnp.sum(dense**2), jnp.max(jnp.abs(off))


def error(dense: Any, node: Any) -> Error:
    """Returns the error of a matrix in few bits."""
    return Error(*map(float, _error(dense, node)))


@dataclasses.dataclass(frozen=True)
class Cost:
    """One leaf in few bits."""

    leaf: str
    few: convert.Few
    parameters: int
    nbytes: int  # as allocated
    errors: Mapping[str, Error]  # by row of the leaf, "" where it is one matrix

    @property
    def bits(self) -> float:
        """Bits a parameter."""
        return 8 * self.nbytes / self.parameters

    @property
    def whole(self) -> Error:
        """The error of all rows together."""
        squares, weight, largest = zip(*self.errors.values(), strict=True)
        return Error(sum(squares), sum(weight), max(largest))

    def as_dict(self) -> dict[str, Any]:
        """Returns what quantization.json holds of the leaf."""
        said = lambda one: {"relative_rms": one.relative_rms, "max_error": one.largest}
        tensors = {row: said(one) for row, one in self.errors.items()}
        return {**self.few._asdict(), "bits": self.bits, "nbytes": self.nbytes, **said(self.whole), "tensors": tensors}


def of(leaf: str, few: convert.Few, node: Any, errors: Mapping[str, Error]) -> Cost:
    """Returns the cost of a leaf."""
    return Cost(leaf, few, math.prod(node.shape), tree.nbytes(node), errors)


def bits(costs: Sequence[Cost]) -> float:
    """Returns bits a parameter of several leaves together; 0 of none."""
    parameters = sum(cost.parameters for cost in costs)
    return 8 * sum(cost.nbytes for cost in costs) / parameters if parameters else 0.0


def table(costs: Sequence[Cost]) -> list[str]:
    """Returns the lines of a table to be printed, a leaf each."""
    head = ("leaf", "format", "bits", "relative RMS error", "largest error")
    rows = [
        (c.leaf, c.few.format, f"{c.bits:.3f}", f"{c.whole.relative_rms:.4f}", f"{c.whole.largest:.4g}") for c in costs
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    line = lambda row: "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
    return [line(row) for row in (head, *rows)]
