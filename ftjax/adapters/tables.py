"""What trains of the embedding and the head beside low-rank deltas: single rows, or a full copy.

These have no `init_one`: they are not a type of adapter for every weight, but additions to any of them.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from ftjax import lookup
from ftjax.adapters import adapter
from ftjax.errors import UserError

SAVED = ("embed_tokens", "lm_head")


class TokenRows(struct.PyTreeNode, adapter.Adapter):
    """New rows for some tokens; the others stay frozen (PEFT's trainable_token_indices)."""

    values: jax.Array  # [n, D]
    indices: tuple[int, ...] = struct.field(pytree_node=False)
    on_head: bool = struct.field(pytree_node=False)  # the weight is a head [D, V], else a table [V, D]
    tied: bool = struct.field(pytree_node=False)

    def rows(self, y: jax.Array, tokens: jax.Array, frozen: Any) -> jax.Array:
        """Returns y with the rows of these tokens in the place of the table's."""
        slots = np.full(frozen.shape[0], -1, np.int32)
        slots[list(self.indices)] = np.arange(len(self.indices))
        slot = jnp.take(jnp.asarray(slots), tokens, axis=0)
        return jnp.where(slot[..., None] >= 0, jnp.take(self.values, jnp.maximum(slot, 0), axis=0), y)

    def head(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns the logits with those of these tokens in the place of the table's."""
        return self.forward(x, y, frozen, key)

    def forward(self, x: jax.Array, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        """Returns y = x W with the columns of these tokens in the place of the head's."""
        del frozen, key
        own = x @ self.values.astype(x.dtype).T
        return y.at[..., np.asarray(self.indices)].set(own.astype(y.dtype))

    def merge(self, dense: jax.Array) -> jax.Array:
        """Returns the table or head with these rows in it."""
        at, values = np.asarray(self.indices), self.values.astype(dense.dtype)
        return dense.at[:, at].set(values.T) if self.on_head else dense.at[at].set(values)


class Copy(struct.PyTreeNode, adapter.Adapter):
    """A full copy of an embedding table that is looked up, while the head keeps the frozen one."""

    weight: jax.Array  # [V, D]

    def rows(self, y: jax.Array, tokens: jax.Array, frozen: Any) -> jax.Array:
        """Returns the rows of the copy."""
        del y, frozen
        return jnp.take(self.weight, tokens, axis=0)

    def merge(self, dense: jax.Array) -> jax.Array:
        """Returns the copy."""
        return self.weight.astype(dense.dtype)


def add(
    adapters: Any,
    base: Any,
    *,
    trainable_tokens: tuple[int, ...],
    modules_to_save: tuple[str, ...],
    ensure_weight_tying: bool,
) -> Any:
    """Returns the adapters with rows or copies of embedding and head that train as well; they begin as the base's.

    As in PEFT, where the embedding is the head too: `trainable_tokens` change both; an adapter on `embed_tokens`, or a
    copy of it, changes the lookup alone and one of `lm_head` the head alone, unless `ensure_weight_tying`.
    """
    one_weight = base.lm_head is None
    table = lambda: adapter.dense(base.embed_tokens)
    if ensure_weight_tying and not one_weight:
        raise UserError("adapter.ensure_weight_tying: embed_tokens and lm_head of this base are two weights; set false")
    for name in modules_to_save:
        if name not in SAVED:
            raise UserError(f"adapter.modules_to_save has {name!r}.{lookup.suggestion(name, list(SAVED))}")
        _free(adapters, name, "modules_to_save")
    saved = {"embed_tokens" if ensure_weight_tying else name for name in modules_to_save}
    new: dict[str, Any] = {}
    if "lm_head" in saved:
        new["lm_head"] = table().T if one_weight else adapter.dense(base.lm_head)
    if "embed_tokens" in saved:
        alone = one_weight and not ensure_weight_tying and "lm_head" not in saved
        new["embed_tokens"] = Copy(weight=table()) if alone else table()
    if ensure_weight_tying and adapter.is_adapter(adapters.embed_tokens):
        new["embed_tokens"] = tie(adapters.embed_tokens)
    adapters = adapters.replace(**new)
    if not trainable_tokens:
        return adapters
    _free(adapters, "embed_tokens", "trainable_tokens")
    if one_weight:
        _free(adapters, "lm_head", "trainable_tokens")  # they are rows of the head as well
    check_tokens(trainable_tokens, base.embed_tokens.shape[0])
    values = jnp.take(table(), np.asarray(trainable_tokens), axis=0)
    rows = TokenRows(values=values, indices=tuple(trainable_tokens), on_head=False, tied=one_weight)
    return adapters.replace(embed_tokens=rows)


def tie(node: Any) -> Any:
    """Returns the adapter of an embedding, seen by a head that is the same weight."""
    if "tied" not in node.__dataclass_fields__:
        raise UserError(f"ensure_weight_tying with {type(node).__name__} on embed_tokens is not implemented; use lora")
    return node.replace(tied=True)


def check_tokens(tokens: tuple[int, ...], vocabulary: int) -> None:
    """Raises where a token id is not in the vocabulary or stands there twice."""
    outside = [token for token in tokens if not 0 <= token < vocabulary]
    if outside:
        raise UserError(f"trainable token {outside[0]} is not in the vocabulary of {vocabulary}")
    if len(set(tokens)) < len(tokens):
        raise UserError(f"trainable tokens {tokens} name a token twice")


def _free(adapters: Any, name: str, what: str) -> None:
    if getattr(adapters, name) is not None:
        raise UserError(f"adapter.{what}: {name} is adapted already; take it out of one of the two")
