"""DoRA: y = m * x (W + scale A B) / |W + scale A B|, a LoRA of the direction and a magnitude of its own.

Liu et al. 2024, eq. 5; the norm, over the inputs of every output, gets no gradient (section 4.3). As in PEFT, dropout
acts on x before A, and on the input of the base only in what the magnitude adds to it.
"""

from typing import Any, ClassVar, Self

from flax import struct
import jax
import jax.numpy as jnp

from ftjax.adapters import adapter, lora


class DoRA(struct.PyTreeNode, adapter.Adapter):
    """A low-rank delta and a magnitude of every output, in float32: in bfloat16 magnitudes do not move.

    A magnitude of exactly 0 stands for an output (of a layer) without an adapter: its factor is 1, without gradient.
    """

    fan_in: ClassVar[int] = -2

    a: jax.Array  # [..., in, R]
    b: jax.Array  # [..., R, out]
    m: jax.Array  # [..., out]
    scale: float = struct.field(pytree_node=False)
    dropout: float = struct.field(pytree_node=False)

    def forward(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns y + (m/n - 1) x' W + m/n * scale * x' A B with n = |W + scale A B| and x' = drop(x)."""
        inside, of_base = x, y
        if key is not None and self.dropout > 0:
            inside = adapter.dropped(x, key, self.dropout)
            of_base = _product(inside, jax.lax.stop_gradient(frozen))
        factor = adapter.across(self._factor(adapter.dense(frozen)), y)
        low = self.scale * lora.low_rank(inside, self.a, self.b).astype(jnp.float32)
        wide = y.astype(jnp.float32) + (factor - 1) * of_base.astype(jnp.float32) + factor * low
        return wide.astype(y.dtype)

    def merge(self, dense: jax.Array) -> jax.Array:
        """Returns m/n * (W + scale A B), in float32 and then in the dtype of W."""
        wide = dense.astype(jnp.float32)
        moved = wide + self._delta()
        return (jnp.expand_dims(self._factor(wide), self.fan_in) * moved).astype(dense.dtype)

    def for_table(self, key: jax.Array) -> Self:
        """Returns the fresh adapter of an embedding: A = 0, B ~ N(0, 1)."""
        return self.replace(a=jnp.zeros_like(self.a), b=jax.random.normal(key, self.b.shape, self.b.dtype))

    def rows(self, y: jax.Array, tokens: jax.Array, frozen: Any) -> jax.Array:
        """Returns m/n * (y + scale * A[tokens] B) in float32, n over the vocabulary; as in PEFT, without dropout."""
        factor = adapter.across(self._factor(adapter.dense(frozen)), y)
        return factor * (y.astype(jnp.float32) + self.scale * lora.table_rows(self.a, self.b, tokens))

    def _delta(self) -> jax.Array:
        return self.scale * (self.a.astype(jnp.float32) @ self.b.astype(jnp.float32))

    def _factor(self, dense: jax.Array) -> jax.Array:
        """Returns m/n [..., out]; nothing wide is kept for the backward pass, since n is a constant to it."""
        norm = jax.lax.stop_gradient(norms(dense + jax.lax.stop_gradient(self._delta())))
        return jnp.where(self.m == 0, 1.0, self.m / jnp.where(norm == 0, 1.0, norm))


@jax.checkpoint
def _product(x: jax.Array, frozen: Any) -> jax.Array:
    """Returns x W; rematerialised, so that a weight in few bits is not kept dense."""
    return x @ adapter.dense(frozen).astype(x.dtype)


def norms(dense: jax.Array) -> jax.Array:
    """Returns the Euclidean norm over the inputs of every output, [..., out]."""
    return jnp.sqrt(jnp.sum(jnp.square(dense), axis=-2))


def init_one(key: jax.Array, weight: Any, *, rank: int, alpha: float, dropout: float, rslora: bool) -> DoRA:
    """Returns a fresh DoRA: A and B as LoRA's, m the norms of W, so that it changes nothing."""
    a, b = lora.fresh(key, weight.shape, rank)
    scale = lora.scaling(alpha, rank, rslora=rslora)
    return DoRA(a=a, b=b, m=norms(adapter.dense(weight)), scale=scale, dropout=dropout)
