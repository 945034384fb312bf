"""The only place that knows what an embedding table [V, D] can be: dense, in few bits, or adapted."""

from typing import Any

import jax
import jax.numpy as jnp

from ftjax.adapters.attach import Adapted, Transposed
from ftjax.quant import format as quant_format


def embed(table: Any, tokens: jax.typing.ArrayLike) -> jax.Array:
    """Returns the rows [..., D] of tokens, in the dtype of the table; float32 where an adapter changed them."""
    tokens = jnp.asarray(tokens)
    if isinstance(table, Adapted):
        return table.adapter.rows(embed(table.frozen, tokens), tokens, table.frozen)
    if quant_format.is_quantized(table):
        return table.rows(tokens)
    return jnp.take(table, tokens, axis=0)


def unembed(table: Any, hidden: jax.Array) -> jax.Array:
    """Returns the float32 logits [..., V] of a table that is the head too: hidden W^T, and what a tied adapter adds."""
    if isinstance(table, Adapted):
        y = unembed(table.frozen, hidden)
        return table.adapter.head(hidden, y, table.frozen, table.key) if table.adapter.tied else y
    weight = table.dequantize(hidden.dtype) if quant_format.is_quantized(table) else table.astype(hidden.dtype)
    return jnp.einsum("...D,VD->...V", hidden, weight, preferred_element_type=jnp.float32)


def head(lm_head: Any, table: Any) -> tuple[Any, bool]:
    """Returns (the weight of the head, True where that is an embedding table [V, D] rather than [D, V]).

    What adapts the lookup alone is left out.
    """
    if lm_head is not None and not isinstance(lm_head, Transposed):
        return lm_head, False
    weight = table if lm_head is None else lm_head.table
    while isinstance(weight, Adapted) and not weight.adapter.tied:
        weight = weight.frozen
    return weight, True
