"""What an adapter owes, and which of its arrays train."""

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from ftjax.errors import UserError
from ftjax.quant import format as quant_format


class Adapter:
    """A node that changes one frozen weight; the rest of the contract is `forward`, `merge` and what is below.

    `constants` names the fields that never train: they get no moments, no update, and are not counted.
    """

    constants: ClassVar[tuple[str, ...]] = ()
    dropout: Any = 0.0  # a share; types that have dropout override it with a field
    tied: Any = False  # on an embedding that is also the head: True where the head sees the adapter as well

    def forward(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns the output for the input x, where y = enter(x) W is what the frozen weight gave."""
        raise NotImplementedError

    def merge(self, dense: jax.Array) -> jax.Array:
        """Returns the weight [..., in, out] that does in one what weight and adapter do in two."""
        raise NotImplementedError

    def enter(self, x: jax.Array) -> jax.Array:
        """Returns what the frozen weight is multiplied by: x, unless the adapter scales inputs."""
        return x

    def bias(self, bias: jax.Array) -> jax.Array:
        """Returns the bias [..., out] of the layer: as it is, unless the adapter scales outputs."""
        return bias

    def stacked(self, layers: tuple[int, ...]) -> Self:
        """Returns the node with these axes in front of every array; only arrays that layers share lack them."""
        del layers
        return self

    def exported(self) -> "Adapter":
        """Returns the same function as a node that PEFT has a form for."""
        return self

    def for_table(self, key: jax.Array) -> Self:
        """Returns the fresh adapter as it begins on an embedding table [V, D]."""
        del key
        raise UserError(f"adapter {type(self).__name__} does not go on embed_tokens; lora and dora do")

    def rows(self, y: jax.Array, tokens: jax.Array, frozen: Any) -> jax.Array:
        """Returns the embeddings [..., D] of tokens, where y are the rows of the frozen table."""
        raise NotImplementedError(f"{type(self).__name__} on an embedding table")

    def head(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns the float32 logits of a table [V, D] that is the head too, where y = x W^T; only if `tied`."""
        raise NotImplementedError(f"{type(self).__name__} on a tied head")


def is_adapter(leaf: Any) -> bool:
    """True for the node of an adapter."""
    return isinstance(leaf, Adapter)


def trained(trainable: Any) -> Any:
    """Returns the tree with None for every constant of its adapters: what gets gradients, moments and updates."""
    strip = lambda leaf: leaf.replace(**dict.fromkeys(leaf.constants)) if is_adapter(leaf) else leaf
    return jax.tree.map(strip, trainable, is_leaf=is_adapter)


def with_zeros(updates: Any, trainable: Any) -> Any:
    """Returns a tree as `trained` gives one with zeros for the constants, so that it fits the whole tree again."""

    def fill(whole: Any, part: Any) -> Any:
        if not is_adapter(whole):
            return part
        return part.replace(**{name: jax.tree.map(jnp.zeros_like, getattr(whole, name)) for name in whole.constants})

    return jax.tree.map(fill, trainable, updates, is_leaf=is_adapter)


def dense(weight: Any) -> jax.Array:
    """Returns a frozen weight in float32, without a gradient."""
    weight = jax.lax.stop_gradient(weight)
    if quant_format.is_quantized(weight):
        return weight.dequantize(jnp.float32)
    return jnp.asarray(weight, jnp.float32)


def across(vector: jax.Array, y: jax.Array) -> jax.Array:
    """Returns a vector over the last axis of y with the rank of y."""
    return jnp.expand_dims(vector, tuple(range(y.ndim - 1)))


def dropped(x: jax.Array, key: jax.Array | None, rate: float) -> jax.Array:
    """Returns x with a share `rate` of its numbers set to 0 and the rest scaled up; without a key x itself."""
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)
