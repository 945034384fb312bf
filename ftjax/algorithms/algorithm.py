"""What an algorithm is: pure functions, so that SFT and PPO share one step and one loop."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

Metrics = dict[str, Any]  # an array as the loss, whose weights hold for it, or a `losses.reduce.Weighted`


class Frozen(NamedTuple):
    """What the loss gets as `base` where an algorithm carries something beside what trains."""

    base: Any
    extra: Any


class Extra(NamedTuple):
    """What changes in training, but not by gradients, and is in every checkpoint: a copy that is a reference."""

    init: Callable[[Any, Any], Any]  # (trainable, base) -> extra
    update: Callable[[Any, Any, jax.Array, Metrics], Any]  # (extra, new trainable, steps done, their metrics) -> extra


class Algorithm(NamedTuple):
    """`base` is the frozen tree, `trainable` all that changes; both are arguments of the jitted step."""

    init: Callable[[jax.Array, Any], Any]  # (key, base) -> trainable
    experience: Callable[[Any, Any, Any, jax.Array], Iterable[Any]]  # (trainable, base, batch, key) -> device batches
    loss: Callable[[Any, Any, Any, jax.Array | None], tuple[Any, Any, Metrics]]
    # (trainable, base, batch, key) -> loss per element, its weights, metrics per element; a key of None: no dropout.
    # With `terms` above 1: a tuple of losses and one of weights, whose means are summed; metrics go by the first.
    extra: Extra | None = None
    reference: Callable[[Any], Any] | None = None  # base -> weights of the policy that this one is held against
    terms: int = 1  # means of different elements, for example of tokens and of values, that the loss is the sum of
    policy: Callable[[Any], Any] = lambda trainable: trainable  # what of it is the language model
    value: Callable[[Any], Any] | None = None  # what of it says what a state is worth: adapters with a head


def frozen(base: Any, extra: Any) -> Any:
    """Returns what `loss` gets as base."""
    return base if extra is None else Frozen(base, extra)


def as_it_is(trainable: Any, base: Any, batch: Any, key: jax.Array) -> Iterable[Any]:
    """Returns the batch itself: the experience of an algorithm that learns from data alone."""
    del trainable, base, key
    return (batch,)
