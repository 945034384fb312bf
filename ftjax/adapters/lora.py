"""LoRA: y = x W + scale * drop(x) A B, with A and B of rank R (Hu et al. 2021, section 4.1)."""

from typing import Any, Self

from flax import struct
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from ftjax.adapters import adapter


@jax.custom_vjp
def low_rank(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns (x A) B in the dtype of x.

    Its own backward pass, because the gradients of A and B contract over tokens: written as a narrow matrix [R, tokens]
    times a wide one in its own layout, XLA transposes the narrow one; autodiff's form makes it transpose x and dy.
    """
    return (x @ a.astype(x.dtype)) @ b.astype(x.dtype)


def _low_rank_fwd(x: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    inner = checkpoint_name(x @ a.astype(x.dtype), "narrow")
    return inner @ b.astype(x.dtype), (x, a, b, inner)


def _low_rank_bwd(saved: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, a, b, inner = saved
    flat = lambda y: y.reshape(-1, y.shape[-1])
    dinner = grad @ b.astype(grad.dtype).T
    da_RI = jnp.einsum("NR,NI->RI", flat(dinner), flat(x), preferred_element_type=jnp.float32)
    db_RO = jnp.einsum("NR,NO->RO", flat(inner), flat(grad), preferred_element_type=jnp.float32)
    da_RI = jax.lax.optimization_barrier(da_RI)  # or XLA folds the transpose into the matmul again
    return dinner @ a.astype(grad.dtype).T, da_RI.T.astype(a.dtype), db_RO.astype(b.dtype)


low_rank.defvjp(_low_rank_fwd, _low_rank_bwd)


class LoRA(struct.PyTreeNode, adapter.Adapter):
    """A low-rank delta of one weight. `scale` and `dropout` are constants of the program."""

    a: jax.Array  # [..., in, R]
    b: jax.Array  # [..., R, out]
    scale: float = struct.field(pytree_node=False)
    dropout: float = struct.field(pytree_node=False)
    tied: bool = struct.field(pytree_node=False, default=False)  # see Adapter

    def forward(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns y + scale * drop(x) A B, where y = x W is what the frozen weight gave."""
        del frozen
        x = adapter.dropped(x, key, self.dropout)
        return y + low_rank(x, self.a, self.b) * jnp.asarray(self.scale, x.dtype)

    def merge(self, dense: jax.Array) -> jax.Array:
        """Returns W + scale * A B, in float32 and then in the dtype of W."""
        return (dense.astype(jnp.float32) + self.delta()).astype(dense.dtype)

    def delta(self) -> jax.Array:
        """Returns scale * A B in float32."""
        return self.scale * (self.a.astype(jnp.float32) @ self.b.astype(jnp.float32))

    def for_table(self, key: jax.Array) -> Self:
        """Returns PEFT's fresh LoRA of an embedding: A = 0, B ~ N(0, 1)."""
        return self.replace(a=jnp.zeros_like(self.a), b=jax.random.normal(key, self.b.shape, self.b.dtype))

    def rows(self, y: jax.Array, tokens: jax.Array, frozen: Any) -> jax.Array:
        """Returns y + scale * A[tokens] B in float32; as in PEFT, without dropout."""
        del frozen
        return y.astype(jnp.float32) + self.scale * table_rows(self.a, self.b, tokens)

    def head(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns y + scale * drop(x) B^T A^T in float32."""
        del frozen
        x = adapter.dropped(x, key, self.dropout)
        return y + self.scale * low_rank(x, self.b.T, self.a.T).astype(jnp.float32)


def table_rows(a: jax.Array, b: jax.Array, tokens: jax.Array) -> jax.Array:
    """Returns A[tokens] B in float32: the low-rank rows of an embedding table."""
    return jnp.take(a, tokens, axis=0).astype(jnp.float32) @ b.astype(jnp.float32)


def init_one(key: jax.Array, weight: Any, *, rank: int, alpha: float, dropout: float, rslora: bool) -> LoRA:
    """Returns PEFT's fresh LoRA for a weight [..., in, out]: A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0, both float32.

    That is kaiming_uniform(a=sqrt 5) on A. `weight` may be a shape.
    """
    a, b = fresh(key, weight.shape, rank)
    return LoRA(a=a, b=b, scale=scaling(alpha, rank, rslora=rslora), dropout=dropout)


def fresh(key: jax.Array, shape: tuple[int, ...], rank: int) -> tuple[jax.Array, jax.Array]:
    """Returns A ~ U(-1/sqrt(in), 1/sqrt(in)) and B = 0 for a weight of this shape."""
    *batch, rows, columns = shape
    bound = rows**-0.5
    a = jax.random.uniform(key, (*batch, rows, rank), jnp.float32, -bound, bound)
    return a, jnp.zeros((*batch, rank, columns), jnp.float32)


def scaling(alpha: float, rank: int, *, rslora: bool) -> float:
    """Returns alpha / rank, or alpha / sqrt(rank) under rsLoRA (Kalajdzievski 2023, eq. 4)."""
    return alpha / rank**0.5 if rslora else alpha / rank
