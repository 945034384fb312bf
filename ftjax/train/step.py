"""The train step: gradients over microbatches, one division, one update, metrics.

`step(state, base, batch, limit) -> (state, metrics)` is pure. Losses and gradients are summed with their weights over
all microbatches and devices and divided once by the total weight, so neither their number nor the mesh can change the
result. A step whose loss or gradient is not finite, or whose loss is above `limit`, changes nothing: the loop finds the
last good state still in its hands.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ftjax.algorithms.algorithm import Algorithm, frozen
from ftjax.losses import reduce
from ftjax.train.state import TrainState

Step = Callable[[TrainState, Any, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def _microbatches(batch: Any, count: int) -> Any:
    """Returns the batch as [M, B / M, ...]; microbatch m has rows m, m + M, ... so each spans all devices."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), batch)


def make(
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    microbatches: int,
) -> Step:
    """Returns the step, not yet jitted; the batch's rows must divide by `microbatches`."""

    def summed(trainable: Any, base: Any, part: Any, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        values, weights, metrics = algorithm.loss(trainable, base, part, key)
        sums = reduce.totals(metrics, weights)
        return reduce.masked_sum(values, weights), (jnp.sum(weights, dtype=jnp.float32), sums)

    gradient = jax.value_and_grad(summed, has_aux=True)

    def over_microbatches(trainable: Any, base: Any, batch: Any, key: jax.Array) -> Any:
        if microbatches == 1:
            return gradient(trainable, base, batch, key)
        parts = _microbatches(batch, microbatches)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradient, trainable, base, first, key)
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(total: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, None]:
            index, part = numbered
            new = gradient(trainable, base, part, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, new), None

        return jax.lax.scan(body, start, (jnp.arange(microbatches), parts))[0]

    def step(state: TrainState, base: Any, batch: Any, limit: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        # From the host where the optimizer's state is kept there (it goes back by the jit's out_shardings), else as is.
        state = state.replace(opt_state=jax.device_put(state.opt_state, jax.memory.Space.Device))
        key = jax.random.fold_in(state.key, state.step)
        (loss, (weight, sums)), grads = over_microbatches(state.trainable, frozen(base, state.extra), batch, key)
        weight = jnp.maximum(weight, 1e-9)
        loss = loss / weight
        means = reduce.means(sums)
        grads = jax.tree.map(lambda g: g / weight, grads)
        grad_norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        new = state.replace(step=state.step + 1, trainable=trainable, opt_state=opt_state)
        if algorithm.extra is not None:
            new = new.replace(extra=algorithm.extra.update(state.extra, trainable, new.step))
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & (loss <= limit)
        kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new.replace(key=None), state.replace(key=None))
        metrics = {"loss": loss, "grad_norm": grad_norm, "learning_rate": schedule(state.step), **means}
        return kept.replace(key=state.key), metrics | {"weight": weight, "applied": good.astype(jnp.float32)}

    return step


Sums = tuple[jax.Array, jax.Array, dict[str, reduce.Total]]  # of losses, weights, metrics


def make_evaluate(algorithm: Algorithm) -> Callable[[Any, Any, Any], Sums]:
    """Returns `evaluate(trainable, base, batch) -> (loss sum, weight sum, metric sums)`; no dropout, not jitted.

    `base` is what the loss takes: `algorithm.frozen` of the base and the state's extra.
    """

    def evaluate(trainable: Any, base: Any, batch: Any) -> Sums:
        values, weights, metrics = algorithm.loss(trainable, base, batch, None)
        return (
            reduce.masked_sum(values, weights),
            jnp.sum(weights, dtype=jnp.float32),
            reduce.totals(metrics, weights),
        )

    return evaluate
