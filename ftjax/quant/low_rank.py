"""What few bits lose, kept beside them as a product of low rank: W ~ Q + A B (LoftQ, Li et al. 2023, algorithm 1).

The base of a run that begins with LoftQ is such a weight; `adapters/loftq.py` begins at its A and B.
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax.quant import format as fmt


def principal(matrix: jax.Array, rank: int, scale: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns A [in, R] and B [R, out] with scale A B nearest to a matrix (Eckart-Young), and its singular values.

    Each gets the root of the singular values: A = U sqrt(S / scale), B = sqrt(S / scale) V^T.
    """
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    root = jnp.sqrt(s[:rank] / scale)
    return u[:, :rank] * root[None, :], root[:, None] * vt[:rank], s


class Corrected(struct.PyTreeNode, fmt.Quantized):
    """A weight in few bits, and a product of low rank that makes up for a part of what they lost."""

    few: Any  # the node in few bits
    a: Any  # float32 [..., in, R]
    b: Any  # float32 [..., R, out]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that this stands for."""
        return self.few.shape

    def dequantize(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns Q + A B, in float32 and then rounded to `dtype`."""
        return (self.few.dequantize(jnp.float32) + self.a @ self.b).astype(dtype)

    def rows(self, index: jax.Array) -> jax.Array:
        """Returns rows of a weight [in, out] in float32."""
        return self.few.rows(index) + jnp.take(self.a, index, axis=0) @ self.b


def abstract(few: Any, rank: int) -> Corrected:
    """Returns the node of shapes around a node of shapes."""
    *batch, rows, columns = few.shape
    return Corrected(
        few=few,
        a=jax.ShapeDtypeStruct((*batch, rows, rank), jnp.float32),
        b=jax.ShapeDtypeStruct((*batch, rank, columns), jnp.float32),
    )


def decompose(weight: jax.Array, *, quantise: Callable[[jax.Array], Any], rank: int, iterations: int) -> Corrected:
    """Returns Q + A B for a matrix [in, out]: `iterations` times Q = quantise(W - A B), A B = the best for W - Q.

    It begins at A B = 0, so after the first time Q is the weight as it is quantised alone. The alternation need not
    fall from one time to the next; the nearest of all is kept, so that more iterations never cost anything but time.
    Each takes one singular value decomposition of the matrix.
    """
    weight = weight.astype(jnp.float32)

    def once(carry: tuple[Any, jax.Array, jax.Array], _: None) -> tuple[Any, None]:
        best, least, product = carry
        few = quantise(weight - product)
        a, b, _s = principal(weight - few.dequantize(jnp.float32), rank, 1.0)
        made = Corrected(few=few, a=a, b=b)
        error = jnp.sum((weight - made.dequantize(jnp.float32)) ** 2)
        best = jax.tree.map(lambda new, old: jnp.where(error < least, new, old), made, best)
        return (best, jnp.minimum(error, least), a @ b), None

    shapes = abstract(jax.eval_shape(quantise, weight), rank)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    start = (nothing, jnp.float32(jnp.inf), jnp.zeros_like(weight))
    (best, _, _), _ = jax.lax.scan(once, start, None, length=iterations)
    return best
