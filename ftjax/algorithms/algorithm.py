"""What an algorithm is: three pure functions, so that SFT and PPO share one step and one loop."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

Metrics = dict[str, jax.Array]


class Algorithm(NamedTuple):
    """`base` is the frozen tree, `trainable` all that changes; both are arguments of the jitted step."""

    init: Callable[[jax.Array, Any], Any]  # (key, base) -> trainable
    experience: Callable[[Any, Any, Any, jax.Array], Iterable[Any]]  # (trainable, base, batch, key) -> device batches
    loss: Callable[[Any, Any, Any, jax.Array | None], tuple[jax.Array, jax.Array, Metrics]]
    # (trainable, base, batch, key) -> loss per element, its weights, metrics per element; a key of None: no dropout
