"""How well a model predicts one long text, read through a window that slides over it.

Protocol (that of the documentation of `transformers`): windows of `context` tokens begin `stride` tokens apart; of each
the tokens count that no window before it had. So a token counts once, with at least `context - stride` tokens before
it. What has none before it does not count: the first token, and with a stride of the whole context that of each window.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ftjax.evals import continuations
from ftjax.models.config import ModelConfig


class Window(NamedTuple):
    """Tokens [start, end) that are read together, of which those from `counted` on count."""

    start: int
    counted: int
    end: int


class Nats(NamedTuple):
    """Negative log-probabilities, summed, of so many tokens."""

    total: float
    tokens: int


def windows(count: int, *, context: int, stride: int) -> list[Window]:
    """Returns the windows of `count` tokens; the last one ends with the text and is as long as it comes."""
    if not 1 <= stride <= context:
        raise ValueError(f"sliding: a stride of {stride} in a context of {context}")
    found, done = [], 0
    for start in range(0, count, stride):
        end = min(start + context, count)
        counted = max(done, start + 1)
        if counted < end:
            found.append(Window(start, counted, end))
        done = end
        if end == count:
            break
    return found


def measure(params: Any, config: ModelConfig, ids: Sequence[int], *, context: int, stride: int, rows: int) -> Nats:
    """Returns what a model says of a text's tokens; `rows` windows are computed at once."""
    found = windows(len(ids), context=context, stride=stride)
    pairs = [(ids[one.start : one.counted], ids[one.counted : one.end]) for one in found]
    scored = continuations.score(params, config, pairs, length=context, rows=rows)
    return Nats(-sum(one.logp for one in scored), sum(len(rest) for _, rest in pairs))
