"""What is read off hidden states by other heads than that of the language model."""

from typing import Any

import jax
import jax.numpy as jnp


def score(params: Any, hidden_BTD: jax.Array, ends_BC: jax.Array) -> jax.Array:
    """Returns what the head of a reward model (`params.score` [D, 1]) says at these places, float32 [B, C]."""
    return values(params, jnp.take_along_axis(hidden_BTD, ends_BC[..., None], axis=1))


def values(params: Any, hidden: jax.Array) -> jax.Array:
    """Returns what that head says in every state, float32: [..., D] -> [...]."""
    return (hidden.astype(jnp.float32) @ params.score)[..., 0]
