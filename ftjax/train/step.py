"""The train step: gradients over microbatches, one division, one update, metrics.

`step(state, base, batch, limit) -> (state, metrics)` is pure. Losses and gradients are summed with their weights over
all microbatches and devices and divided once by the total weight, so neither their number nor the mesh can change the
result. A step whose loss or gradient is not finite, or whose loss is above `limit`, changes nothing: the loop finds the
last good state still in its hands.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Updated(NamedTuple):
    """What one update leaves behind."""

    trainable: Any
    opt_state: Any
    loss: jax.Array
    weight: jax.Array
    grad_norm: jax.Array
    totals: dict[str, reduce.Total]


Update = Callable[[Any, Any, Any, Any, jax.Array], Updated]


def update_of(algorithm: Algorithm, optimizer: optax.GradientTransformation, *, microbatches: int) -> Update:
    """Returns `update(trainable, opt_state, base, batch, key)`; `base` is what the loss takes.

    Where the loss is a sum of terms, each is divided by its own weight, over the whole batch.
    """

    counted = lambda weights: jnp.stack([jnp.sum(w, dtype=jnp.float32) for w in weights])

    def summed(trainable: Any, base: Any, part: Any, key: jax.Array, counts: Any) -> tuple[jax.Array, Any]:
        values, weights, metrics = algorithm.loss(trainable, base, part, key)
        if algorithm.terms == 1:
            total, weight = reduce.masked_sum(values, weights), jnp.sum(weights, dtype=jnp.float32)
            return total, (weight, reduce.totals(metrics, weights))
        # The share of a microbatch in the mean of every term, whose weights over all of them are known.
        counts = counted(weights) if counts is None else counts
        means = [
            reduce.masked_sum(v, w) / n for v, w, n in zip(values, weights, jnp.maximum(counts, 1e-9), strict=True)
        ]
        return sum(means, jnp.float32(0)), (jnp.float32(1 / microbatches), reduce.totals(metrics, weights[0]))

    gradient = jax.value_and_grad(summed, has_aux=True)

    def over_microbatches(trainable: Any, base: Any, batch: Any, key: jax.Array) -> Any:
        if microbatches == 1:
            return gradient(trainable, base, batch, key, None)
        parts, counts = _microbatches(batch, microbatches), None
        if algorithm.terms > 1:  # all that the loss computes beside its weights is dead code here
            each = jax.lax.map(lambda part: counted(algorithm.loss(trainable, base, part, key)[1]), parts)
            counts = jnp.sum(each, axis=0)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradient, trainable, base, first, key, counts)
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(total: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, None]:
            index, part = numbered
            new = gradient(trainable, base, part, jax.random.fold_in(key, index), counts)
            return jax.tree.map(jnp.add, total, new), None

        return jax.lax.scan(body, start, (jnp.arange(microbatches), parts))[0]

    def update(trainable: Any, opt_state: Any, base: Any, batch: Any, key: jax.Array) -> Updated:
        (loss, (weight, sums)), grads = over_microbatches(trainable, base, batch, key)
        weight = jnp.maximum(weight, 1e-9)
        grads = jax.tree.map(lambda g: g / weight, grads)
        grad_norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, opt_state, trainable)
        return Updated(optax.apply_updates(trainable, updates), opt_state, loss / weight, weight, grad_norm, sums)

    return update


def make(
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    microbatches: int,
) -> Step:
    """Returns the step, not yet jitted; the batch's rows must divide by `microbatches`."""
    update = update_of(algorithm, optimizer, microbatches=microbatches)

    def step(state: TrainState, base: Any, batch: Any, limit: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        # From the host where the optimizer's state is kept there (it goes back by the jit's out_shardings), else as is.
        state = state.replace(opt_state=jax.device_put(state.opt_state, jax.memory.Space.Device))
        key = jax.random.fold_in(state.key, state.step)
        done = update(state.trainable, state.opt_state, frozen(base, state.extra), batch, key)
        metrics = {
            "loss": done.loss,
            "grad_norm": done.grad_norm,
            "learning_rate": schedule(state.step),
            **reduce.means(done.totals),
        }
        good = jnp.isfinite(done.loss) & jnp.isfinite(done.grad_norm) & (done.loss <= limit)
        new = finish(algorithm, state, done.trainable, done.opt_state, metrics, good)
        return new, metrics | {"weight": done.weight, "applied": good.astype(jnp.float32)}

    return step


def finish(
    algorithm: Algorithm, state: TrainState, trainable: Any, opt_state: Any, metrics: Any, good: jax.Array
) -> TrainState:
    """Returns the state after a step, with what the algorithm carries; the old one where the step is not `good`."""
    new = state.replace(step=state.step + 1, trainable=trainable, opt_state=opt_state)
    if algorithm.extra is not None:
        new = new.replace(extra=algorithm.extra.update(state.extra, trainable, new.step, metrics))
    kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new.replace(key=None), state.replace(key=None))
    return kept.replace(key=state.key)


Sums = tuple[jax.Array, jax.Array, dict[str, reduce.Total]]  # of losses, weights, metrics
Elements = dict[str, reduce.Total]  # values times weights, and weights, of each element: of "loss", and of metrics
Measure = Callable[[Any, Any, Any], tuple[Sums, Elements]]


def make_measure(algorithm: Algorithm) -> Measure:
    """Returns `measure(trainable, base, batch) -> ((loss sum, weight sum, metric sums), elements)`; no dropout, no jit.

    `base` is what the loss takes: `algorithm.frozen` of the base and the state's extra. Elements are what the sums are
    made of, for `evals.by_row`.
    """

    def measure(trainable: Any, base: Any, batch: Any) -> tuple[Sums, Elements]:
        values, weights, metrics = algorithm.loss(trainable, base, batch, None)
        sums = (
            reduce.masked_sum(values, weights),
            jnp.sum(weights, dtype=jnp.float32),
            reduce.totals(metrics, weights),
        )
        return sums, reduce.products({"loss": values, **metrics}, weights)

    return measure


def make_evaluate(algorithm: Algorithm) -> Callable[[Any, Any, Any], Sums]:
    """Returns `evaluate(trainable, base, batch) -> (loss sum, weight sum, metric sums)`, as in `make_measure`."""
    measure = make_measure(algorithm)
    return lambda trainable, base, batch: measure(trainable, base, batch)[0]
