"""What a model says of whole completions: sums over the tokens of each branch of a PreferenceBatch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ftjax.losses import weighting
from ftjax.losses.preference import PairLengths, PairLogps
from ftjax.models import decoder
from ftjax.models.config import ModelConfig


class Completions(NamedTuple):
    """Sums over the counted tokens of every completion, [B, C] float32; 0 where there is none."""

    logps: jax.Array  # tokens past the shorter completion of a pair times ld_alpha
    whole: jax.Array  # log-probabilities with every counted token in full
    lengths: jax.Array  # counted tokens
    entropy: jax.Array  # carries no gradient
    correct: jax.Array  # tokens that are the most likely ones; carries no gradient
    log_sum_squares: jax.Array | None  # log sum over the vocabulary of p^2; only where it is asked for


def of(params: Any, batch: Any, config: ModelConfig, *, ld_alpha: float, squares: bool) -> Completions:
    """Returns the sums for all completions of a batch, in one forward pass.

    `ld_alpha` weighs the log-probabilities of tokens past the shorter completion of a pair (LD-DPO); lengths, entropy
    and the rest count them whole. `squares` asks for what WPO needs.
    """
    out = decoder.logps(
        params, batch.tokens, batch.targets, batch.weights, config, batch.positions, batch.segments, batch.branches,
        squares=squares,
    )  # fmt: skip
    # A branch begins with the prompt's last token, which predicts the first of the completion: so a target's branch is
    # that of the token before it.
    places = jnp.arange(1, batch.ends.shape[1] + 1)[None, None]
    member_BTC = (batch.branches[..., None] == places).astype(jnp.float32)
    total = lambda values_BT, weights_BT: jnp.einsum("BT,BTC->BC", values_BT * weights_BT, member_BTC)
    weights = batch.weights
    logps = whole = total(out.logps, weights)
    if ld_alpha != 1:
        logps = total(out.logps, weighting.length_desensitized(weights, batch.beyond, ld_alpha=ld_alpha))
    return Completions(
        logps=logps,
        whole=whole,
        lengths=total(jnp.ones_like(weights), weights),
        entropy=total(out.entropy, weights),
        correct=total(out.correct, weights),
        log_sum_squares=None if out.log_sum_squares is None else total(out.log_sum_squares, weights),
    )


def pairs(values_BC: jax.Array, batch: Any) -> PairLogps:
    """Returns the values of both completions of every place of a pair, [B * P]; anything where there is none."""
    pick = lambda number_BP: jnp.take_along_axis(values_BC, jnp.maximum(number_BP - 1, 0), axis=1).reshape(-1)
    return PairLogps(pick(batch.chosen), pick(batch.rejected))


def pair_lengths(found: Completions, batch: Any) -> PairLengths:
    """Returns the counted tokens of both completions of every place of a pair."""
    return PairLengths(*pairs(found.lengths, batch))
