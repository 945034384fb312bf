"""Prompts and their completions as rows of tokens: G completions of a prompt are branches behind one copy of it.

A row holds the prompt but for its last token, at the right end of T - 1 places, and behind it for each completion a
block of N + 1 places: the prompt's last token, which predicts the first of the completion, and the completion. So the
n-th token of completion g is predicted at T - 1 + g (N + 1) + n, whatever the lengths are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.models import decoder, heads
from ftjax.models.config import ModelConfig
from ftjax.nn import embedding, token_logps


class Rows(NamedTuple):
    """Prompts with their completions; the first axis is the prompt."""

    tokens: jax.Array  # int32 [P, T - 1 + G (N + 1)]
    positions: jax.Array  # int32, as tokens: those of prompt and completion together
    segments: jax.Array  # int32, as tokens: 1, or 0 for padding
    branches: jax.Array | None  # int32, as tokens: 0 for the prompt, g + 1 for completion g; None where G is 1
    completions: jax.Array  # int32 [P, G, N]: the tokens that are predicted
    mask: jax.Array  # float32 [P, G, N]: 1 for tokens of the completion, the stop token among them

    @property
    def head(self) -> int:
        """Returns the places before the first block."""
        _, count, length = self.completions.shape
        return self.tokens.shape[1] - count * (length + 1)


def arrange(prompts_PT: np.ndarray, valid_PT: np.ndarray, completions_PGN: np.ndarray, mask_PGN: np.ndarray) -> Rows:
    """Returns the rows; prompts are at the right end of theirs, completions at the left end (2).

    Numbers in brackets are the details of docs/ppo.md.
    """
    rows, count, length = completions_PGN.shape
    blocks = np.concatenate([np.broadcast_to(prompts_PT[:, None, -1:], (rows, count, 1)), completions_PGN], axis=2)
    present = np.concatenate([np.ones((rows, count, 1), np.int32), mask_PGN.astype(np.int32)], axis=2)
    sizes = valid_PT.sum(axis=1)
    heads = np.cumsum(valid_PT, axis=1) - valid_PT
    # Positions count the tokens before (3); what is padding is known from masks alone, and its tokens are 0.
    places = (sizes - 1)[:, None, None] + np.arange(length + 1)
    join: Callable[[Any, Any], Any] = lambda head, block: np.concatenate(
        [head[:, :-1], np.broadcast_to(block, blocks.shape).reshape(rows, -1)], axis=1
    ).astype(np.int32)  # fmt: skip
    numbers = np.arange(1, count + 1)[None, :, None]
    completed: Any = (completions_PGN * mask_PGN).astype(np.int32)
    mask: Any = mask_PGN.astype(np.float32)
    return Rows(
        tokens=join(prompts_PT, blocks * present),
        positions=join(heads, places * present),
        segments=join(valid_PT, present),
        branches=None if count == 1 else join(np.zeros_like(prompts_PT), numbers * present),
        completions=completed,
        mask=mask,
    )


def hidden(params: Any, rows: Rows, config: ModelConfig) -> jax.Array:
    """Returns the normed hidden states of the blocks, [P, G, N + 1, D]: at n the one that predicts token n."""
    hidden_PSD = decoder.hidden(params, rows.tokens, config, rows.positions, rows.segments, rows.branches)
    prompts, count, length = rows.completions.shape
    return hidden_PSD[:, rows.head :].reshape(prompts, count, length + 1, -1)


def logps(
    params: Any, hidden_PGND: jax.Array, rows: Rows, config: ModelConfig, *, temperature: float
) -> token_logps.TokenLogps:
    """Returns what the head says of every token of the completions, [P, G, N], with all logits over `temperature`.

    The sampler divides by it too, so without it the ratio of the first update would not be 1 (5). Hidden states
    are divided in place of logits, and a bound of logits with them.
    """
    prompts, count, length = rows.completions.shape
    side_by_side = lambda x: x.reshape(prompts, count * length, *x.shape[3:])
    head, tied = embedding.head(params.lm_head, params.embed_tokens)
    found = token_logps.token_logps(
        side_by_side(hidden_PGND[:, :, :-1]) / temperature,
        head,
        side_by_side(rows.completions),
        side_by_side(rows.mask),
        tied=tied,
        softcap=config.logit_softcap / temperature,
        squares=False,
    )
    back: Callable[[Any], Any] = lambda x: None if x is None else x.reshape(prompts, count, length)
    return token_logps.TokenLogps(*map(back, found))


def flat(x_PGN: jax.Array) -> jax.Array:
    """Returns numbers of tokens [P, G, N] as rows of completions [B, N], which losses and advantages take."""
    return x_PGN.reshape(-1, x_PGN.shape[-1])


def values(params: Any, hidden_PGND: jax.Array) -> jax.Array:
    """Returns what the head of one number says in every state, float32 [P, G, N + 1]: at n before token n (1)."""
    return heads.values(params, hidden_PGND)


def ends(rows: Rows) -> jax.Array:
    """Returns the place of the last token of each completion in its row, [P, G]; that of the prompt where it is empty.

    Where a reward model reads its score (6).
    """
    _, count, length = rows.completions.shape
    return rows.head + jnp.arange(count)[None] * (length + 1) + rows.mask.sum(axis=2).astype("int32")
