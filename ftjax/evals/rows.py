"""What a model says of a row of training data: how likely its answer is, with the prompt and without.

Protocol: the tokens are those of training, template and stop token included, each row on its own; what counts is what
training counts. Without the prompt, those same tokens stand behind the BOS alone (the end token, where a tokenizer has
no BOS): of several answers in a row, one behind the other.
"""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.data import batch as arrays
from ftjax.data import encode
from ftjax.models import decoder
from ftjax.models.config import ModelConfig


class Said(NamedTuple):
    """What a model says of rows, in their order."""

    nll: np.ndarray  # float64 [n]: -log p of all counted tokens, in nats
    tokens: np.ndarray  # int64 [n]: how many they are
    surprise: np.ndarray  # float64 [n]: their mean error vector, see `read`
    embedding: np.ndarray  # float16 [n, D]: mean of the last normed hidden states over all tokens of the row


def read(params: Any, config: ModelConfig, examples: Sequence[encode.Example], *, rows: int) -> Said:
    """Returns what a model says of examples, at most `rows` of them in a batch.

    `surprise` is the mean over counted tokens of the length of the error vector, |p - y| with p the distribution over
    the next token and y the one-hot target: EL2N (Paul et al. 2021, 2107.07075) of each token. It is the length of the
    loss's gradient with respect to the logits, so it says without a backward pass how hard a row pulls: 0 where the
    model is sure and right, sqrt(2) where it is sure and wrong, and bounded where the NLL is not.
    """
    found = Said(
        np.zeros(len(examples)),
        np.array([int(one.mask.sum()) for one in examples], np.int64),
        np.zeros(len(examples)),
        np.zeros((len(examples), config.d_model), np.float16),
    )
    rows = min(rows, arrays.padded_rows(len(examples)))  # of every batch: one program for each width
    lengths = [len(one.ids) for one in examples]
    for places, width in arrays.by_width(lengths, longest=config.context, rows=rows):
        chosen: list[encode.Example | None] = [examples[place] for place in places]
        chosen += [None] * (rows - len(places))
        batch = arrays.pad_rows(chosen, length=width)
        nll, surprise, embedding = jax.device_get(_said(params, batch, config=config))
        found.nll[places] = nll[: len(places)]
        found.surprise[places] = surprise[: len(places)] / found.tokens[places]
        found.embedding[places] = embedding[: len(places)]
    return found


@functools.partial(jax.jit, static_argnames="config")
def _said(params: Any, batch: Any, *, config: ModelConfig) -> tuple[jax.Array, jax.Array, jax.Array]:
    hidden_BTD = decoder.hidden(params, batch.tokens, config, batch.positions, batch.segments)
    out = decoder.logps_of_hidden(params, hidden_BTD, batch.targets, batch.weights, config, squares=True)
    assert out.log_sum_squares is not None
    # |p - y|^2 = sum_v p(v)^2 - 2 p(y) + 1, which rounding can put below 0
    length_BT = jnp.sqrt(jnp.maximum(jnp.exp(out.log_sum_squares) - 2 * jnp.exp(out.logps) + 1, 0.0))
    inside_BT = jnp.asarray(batch.segments > 0, jnp.float32)
    total_BD = jnp.einsum("btd,bt->bd", hidden_BTD.astype(jnp.float32), inside_BT)
    mean_BD = total_BD / jnp.maximum(inside_BT.sum(axis=1), 1)[:, None]
    return -jnp.sum(out.logps * batch.weights, axis=1), jnp.sum(length_BT * batch.weights, axis=1), mean_BD


def without_prompt(example: encode.Example, start: int) -> encode.Example | None:
    """Returns the counted tokens of a row behind `start` alone; None where there is no prompt to leave out."""
    counted = np.flatnonzero(example.mask)
    if example.mask[1 : counted[-1]].all():
        return None
    ids = np.concatenate([[start], example.ids[counted]]).astype(np.int32)
    return encode.Example(ids, (np.arange(len(ids)) > 0).astype(np.uint8), example.where)
