"""VeRA: y = x W + lambda_b * ((lambda_d * drop(x) A) B), A and B random, shared and never trained.

Kopiczko et al. 2023, eq. 2. One pair serves all layers and weights: a weight takes the first rows of A and the first
columns of B, both as large as the largest weight asks for. They come from `projection_key` as PEFT draws them.
"""

from typing import Any, ClassVar, Self

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from ftjax.adapters import adapter


class VeRA(struct.PyTreeNode, adapter.Adapter):
    """Two trained vectors between two constant matrices, which have no layer axis until they are attached."""

    constants: ClassVar[tuple[str, ...]] = ("a", "b")

    a: jax.Array  # [in, R]
    b: jax.Array  # [R, out]
    lambda_d: jax.Array  # [..., R]
    lambda_b: jax.Array  # [..., out]
    dropout: float = struct.field(pytree_node=False)

    def stacked(self, layers: tuple[int, ...]) -> Self:
        """Returns the node with A and B repeated for every layer, as a scan over layers needs them."""
        repeat = lambda x: jnp.broadcast_to(jnp.expand_dims(x, tuple(range(len(layers)))), (*layers, *x.shape))
        return self.replace(a=repeat(self.a), b=repeat(self.b))

    def forward(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns y + lambda_b * ((lambda_d * drop(x) A) B)."""
        del frozen
        a, b = jax.lax.stop_gradient((self.a.astype(x.dtype), self.b.astype(x.dtype)))
        inner = adapter.dropped(x, key, self.dropout) @ a
        outer = (inner * adapter.across(self.lambda_d, inner).astype(x.dtype)) @ b
        return y + outer * adapter.across(self.lambda_b, outer).astype(x.dtype)

    def merge(self, dense: jax.Array) -> jax.Array:
        """Returns W + A diag(lambda_d) B diag(lambda_b), in float32 and then in the dtype of W."""
        a, b = (jnp.asarray(x, jnp.float32) for x in (self.a, self.b))
        layers = "" if a.ndim == 2 else "..."
        delta = jnp.einsum(f"{layers}ir,...r,{layers}ro,...o->...io", a, self.lambda_d, b, self.lambda_b)
        return (dense.astype(jnp.float32) + delta).astype(dense.dtype)


def projections(seed: int, rank: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shared A [rows, R] and B [R, columns] that PEFT makes of a `projection_prng_key`.

    kaiming_uniform of A^T and then of B^T, out of one generator: torch's on the CPU is the Mersenne twister of NumPy,
    and its uniform numbers are the lower 24 bits of each draw.
    """
    twister = np.random.RandomState(seed)

    def uniform(shape: tuple[int, int]) -> np.ndarray:
        bound = 3.0**0.5 * (2.0**0.5 / shape[1] ** 0.5)
        unit = (twister.randint(0, 2**32, shape, np.uint32) & 0xFFFFFF) * 2.0**-24
        low, high = np.float32(-bound), np.float32(bound)
        return (unit * np.float64(high - low) + np.float64(low)).astype(np.float32)  # rounded once, as torch's fma does

    a, b = uniform((rank, rows)), uniform((columns, rank))
    return np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)


def init_one(
    key: jax.Array,
    weight: Any,
    *,
    largest: tuple[int, int],
    rank: int,
    dropout: float,
    d_initial: float,
    projection_key: int,
) -> VeRA:
    """Returns a fresh VeRA: lambda_d = d_initial, lambda_b = 0. `largest` is the largest in and out of all targets."""
    del key
    *batch, rows, columns = weight.shape
    a, b = projections(projection_key, rank, *largest)
    return VeRA(
        a=jnp.asarray(a[:rows]),
        b=jnp.asarray(b[:, :columns]),
        lambda_d=jnp.full((*batch, rank), d_initial, jnp.float32),
        lambda_b=jnp.zeros((*batch, columns), jnp.float32),
        dropout=dropout,
    )
