"""A LoRA that begins elsewhere than at zero, minus its own beginning: y = x W + scale x (A B - A0 B0).

PiSSA and OLoRA take the start out of the base weight instead; but policy and reference share one base, so it must stay
as it is. The two are the same function: (W - scale A0 B0) + scale A B. Exported, it is a plain LoRA of twice the rank
on the original base, as PEFT converts (`path_initial_model_for_weight_conversion`).
To add a way to begin: a module with `init_one` that calls `begin` with a function W [in, out] -> (A, B).
"""

from collections.abc import Callable
from typing import Any, ClassVar

from flax import struct
import jax
import jax.numpy as jnp

from ftjax.adapters import adapter, lora


class Shifted(struct.PyTreeNode, adapter.Adapter):
    """A LoRA and the constants that it began with."""

    constants: ClassVar[tuple[str, ...]] = ("a0", "b0")

    a: jax.Array  # [..., in, R]
    b: jax.Array  # [..., R, out]
    a0: jax.Array  # [..., in, R]
    b0: jax.Array  # [..., R, out]
    scale: float = struct.field(pytree_node=False)
    dropout: float = struct.field(pytree_node=False)

    def forward(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns y + scale * drop(x) (A B - A0 B0), in one product of rank 2R.

        In one, because both halves are large and nearly equal: summed in one dot product they cancel before anything
        is rounded to the dtype of x.
        """
        return self.exported().forward(x, y, frozen, key)

    def merge(self, dense: jax.Array) -> jax.Array:
        """Returns W + scale * (A B - A0 B0), in float32 and then in the dtype of W."""
        return self.exported().merge(dense)

    def exported(self) -> lora.LoRA:
        """Returns the plain LoRA of rank 2R that it is: [A | A0] and [B ; -B0]."""
        a0, b0 = jax.lax.stop_gradient((self.a0, self.b0))
        a, b = jnp.concatenate([self.a, a0], axis=-1), jnp.concatenate([self.b, -b0], axis=-2)
        return lora.LoRA(a=a, b=b, scale=self.scale, dropout=self.dropout)


def begin(
    weight: Any, start: Callable[[jax.Array], tuple[jax.Array, jax.Array]], *, scale: float, dropout: float
) -> Shifted:
    """Returns the fresh adapter of a weight [..., in, out]; `start` sees one matrix at a time, to bound the memory."""
    a, b = _each_matrix(start, weight)
    return Shifted(a=a, b=b, a0=a, b0=b, scale=scale, dropout=dropout)


def _each_matrix(start: Callable[[jax.Array], tuple[jax.Array, jax.Array]], weight: Any) -> Any:
    if len(weight.shape) == 2:
        return start(adapter.dense(weight))
    return jax.lax.map(lambda layer: _each_matrix(start, layer), weight)
