"""How well a model predicts held-out text: perplexity per token, per word and per byte.

Protocol of held-out rows: every supervised token of the set once, each row on its own (nothing before it but its own
prompt), the stop token included; `sliding` has the protocol of one long text. Words are what white space separates and
bytes UTF-8 in the text of the supervised tokens without special tokens, so numbers by word and byte can be compared
between tokenizers.
"""

from collections.abc import Callable, Iterable, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from ftjax.errors import UserError
from ftjax.losses import reduce


class Units(NamedTuple):
    """What the supervised part of a set consists of."""

    words: int
    bytes: int


def units(texts: Iterable[str]) -> Units:
    """Returns how many words and bytes the texts have together."""
    texts = list(texts)
    return Units(words=sum(len(text.split()) for text in texts), bytes=sum(len(text.encode()) for text in texts))


def evaluate(
    sums: Callable[[Any], tuple[Any, Any, dict[str, Any]]], batches: Sequence[Any], size: Units
) -> dict[str, float]:
    """Returns `eval_loss` in nats a token, its perplexities, and the means of the loss's own metrics.

    `sums(batch)` gives the summed loss, the summed weight and the totals of the metrics (`losses.reduce`) of a batch.
    """
    loss, weight = 0.0, 0.0
    metrics: dict[str, tuple[float, float]] = {}
    for batch in batches:
        batch_loss, batch_weight, batch_metrics = sums(batch)
        loss, weight = loss + float(batch_loss), weight + float(batch_weight)
        for name, (value, part) in batch_metrics.items():
            total, whole = metrics.get(name, (0.0, 0.0))
            metrics[name] = (total + float(value), whole + float(part))
    return numbers(loss, weight, size) | {f"eval_{name}": value for name, value in reduce.means(metrics).items()}


def numbers(nats: float, tokens: float, size: Units) -> dict[str, float]:
    """Returns `eval_loss` in nats a token and the perplexities of a text, of its summed loss."""
    if not tokens:
        raise UserError("perplexity: no token counts; give rows or a text that have something to predict")
    found = {"eval_loss": nats / tokens, "eval_perplexity": _exp(nats / tokens)}
    if size.words:
        found["eval_word_perplexity"] = _exp(nats / size.words)
    if size.bytes:
        found["eval_byte_perplexity"] = _exp(nats / size.bytes)
        found["eval_bits_per_byte"] = nats / size.bytes / math.log(2)
    return found


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else float(np.inf)
