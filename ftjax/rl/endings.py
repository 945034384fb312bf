"""What becomes of completions that do not end: cut after a stop token, and scored for having none.

Detail 4 and 7 of "The N Implementation Details of RLHF with PPO" (2024). `ended` says which rows have a stop token.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def penalty(scores: Float[Array, " B"], ended: Bool[Array, " B"], *, value: float) -> Float[Array, " B"]:
    """Returns the scores less `value` for rows that did not end (TRL's `missing_eos_penalty`)."""
    return jnp.where(ended, scores, scores - value)


def replace(scores: Float[Array, " B"], ended: Bool[Array, " B"], *, value: float) -> Float[Array, " B"]:
    """Returns the scores with `value` for rows that did not end (-1 in lm-human-preferences and in N+)."""
    return jnp.where(ended, scores, value)


def truncate(
    tokens: Int[Array, "B T"], weights: Float[Array, "B T"], stops: Int[Array, " stops"], *, start: int
) -> tuple[Float[Array, "B T"], Bool[Array, " B"]]:
    """Returns the weights of completions cut after their first stop token, and whether they have one.

    For sampling of a fixed length that goes on past the end. Stop tokens before the position `start` do not count: 0
    with the end of the text as stop; in lm-human-preferences 16, with token 13, the period. Tokens without weight
    never stop a row.
    """
    counts = (weights != 0) & (jnp.arange(tokens.shape[1]) >= start)[None, :]
    is_stop = jnp.isin(tokens, stops) & counts
    after = jnp.cumsum(is_stop, axis=1) - is_stop > 0
    return jnp.where(after, 0.0, weights), jnp.any(is_stop, axis=1)


def soft_overlong(lengths: Int[Array, " B"], *, longest: int, buffer: int) -> Float[Array, " B"]:
    """Returns the punishment of long completions, to be added to the scores (DAPO; Yu et al. 2025, eq. 13).

    0 up to longest - buffer tokens, then falling in a line to -1 at `longest`, and -1 beyond.
    """
    if not 0 < buffer <= longest:
        raise ValueError(f"buffer is {buffer}; it must be 1 to longest, {longest}")
    return -jnp.clip((lengths - (longest - buffer)) / buffer, 0.0, 1.0)
