"""NEFTune: noise on the embeddings of a training step (Jain et al. 2023). It learns nothing; the head never sees it.

It has no `init_one`: it is put over whatever the embedding is when a step is computed, and is gone after it.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from ftjax import tree
from ftjax.adapters import adapter, attach


class Noise(struct.PyTreeNode, adapter.Adapter):
    """Noise for the tokens [B, T] of one batch."""

    size_BT: jax.Array  # float32: the bound of the noise of every token
    key: jax.Array

    def rows(self, y: jax.Array, tokens: jax.Array, frozen: Any) -> jax.Array:
        """Returns y + U(-size, size), in float32."""
        del tokens, frozen
        unit = jax.random.uniform(self.key, y.shape, jnp.float32, -1.0, 1.0)
        return y.astype(jnp.float32) + unit * self.size_BT[..., None]


def on(table: Any, segments_BT: jax.Array | None, key: jax.Array, *, alpha: float) -> attach.Adapted:
    """Returns the embedding with noise of at most alpha / sqrt(T D) for tokens in a document of T tokens.

    Segments are numbers of documents, 0 is padding and gets none. The paper's T is the length of the row without
    padding; in a packed row each document is one.
    """
    weight = table
    while isinstance(weight, attach.Adapted):
        weight = weight.frozen
    lengths_BT = jax.vmap(lambda row: jnp.bincount(row, length=row.shape[0] + 1)[row])(segments_BT)
    bound_BT = alpha / jnp.sqrt(lengths_BT.astype(jnp.float32) * weight.shape[-1])
    size_BT = jnp.where(segments_BT == 0, 0.0, bound_BT)
    return attach.Adapted(frozen=table, adapter=Noise(size_BT=size_BT, key=tree.fold(key, "neftune")))
