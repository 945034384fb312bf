"""IA3: one number for every output of a weight, or for every input of a feedforward one (Liu et al. 2022, section 3.3).

y = l * (x W + bias) for keys and values, y = (l * x) W + bias for the projection that follows the activation.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax import tree
from ftjax.adapters import adapter
from ftjax.errors import UserError


class IA3(struct.PyTreeNode, adapter.Adapter):
    """A rescaling. A number of exactly 0 stands for a layer without an adapter: it counts as 1, without gradient."""

    l: jax.Array  # [..., out], or [..., in] if feedforward
    feedforward: bool = struct.field(pytree_node=False)

    def enter(self, x: jax.Array) -> jax.Array:
        """Returns l * x if feedforward, else x."""
        return (x * adapter.across(self._factor(), x)).astype(x.dtype) if self.feedforward else x

    def forward(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns l * y, or y = (l * x) W if feedforward."""
        del x, frozen, key
        return y if self.feedforward else (y * adapter.across(self._factor(), y)).astype(y.dtype)

    def bias(self, bias: jax.Array) -> jax.Array:
        """Returns l * bias: PEFT scales what the whole layer gives."""
        return bias if self.feedforward else (bias * self._factor()).astype(bias.dtype)

    def merge(self, dense: jax.Array) -> jax.Array:
        """Returns W with rows or columns scaled."""
        factor = jnp.expand_dims(self._factor(), -1 if self.feedforward else -2)
        return (dense.astype(jnp.float32) * factor).astype(dense.dtype)

    def _factor(self) -> jax.Array:
        return jnp.where(self.l == 0, 1.0, self.l)


def init_one(key: jax.Array, weight: Any, *, path: str, feedforward: str) -> IA3:
    """Returns ones; `feedforward` names the weights (as PEFT's list does, with commas) whose inputs are scaled."""
    del key
    *batch, rows, columns = weight.shape
    if len(batch) > 1:
        raise UserError(f"{path}: ia3 does not go on experts; lora does")
    names = [name.strip() for name in feedforward.split(",") if name.strip()]
    inputs = tree.matches(path, names)
    return IA3(l=jnp.ones((*batch, rows if inputs else columns), jnp.float32), feedforward=inputs)
