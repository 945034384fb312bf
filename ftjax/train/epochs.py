"""The step of an algorithm that learns from its own samples: several epochs of minibatches over one experience.

All of it is one compiled scan. An experience is a NamedTuple of `rows`, arrays whose first axis is the row, and `told`,
numbers about it that become metrics of the step. Numbers in brackets are the details of docs/ppo.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ftjax.algorithms.algorithm import Algorithm, frozen
from ftjax.losses import reduce
from ftjax.train import step as steps
from ftjax.train.state import TrainState

APPROX_KL = "policy/approxkl_avg"
FIRST = (APPROX_KL, "val/ratio")  # of the update before which nothing has moved: 0 and 1 (26)


class Plan(NamedTuple):
    """How often an experience is gone through: every epoch deals its rows anew into minibatches (16)."""

    epochs: int
    minibatches: int
    most_kl: float  # of an update, in nats a token: the first one above it is not applied, nor any after it


def make(
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    microbatches: int,
    plan: Plan,
) -> steps.Step:
    """Returns the step, not yet jitted; rows must divide by minibatches, and those of one by `microbatches`.

    Its metrics are means over all updates, but for those of the first one (`policy/approxkl_first` and
    `val/ratio_first`). A step with an update that is not finite changes nothing. `schedule` is of steps (18), and
    the optimizer's own is of updates.
    """
    update = steps.update_of(algorithm, optimizer, microbatches=microbatches)

    def step(state: TrainState, base: Any, experience: Any, limit: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        state = state.replace(opt_state=jax.device_put(state.opt_state, jax.memory.Space.Device))
        key, against = jax.random.fold_in(state.key, state.step), frozen(base, state.extra)
        order = _order(jax.random.fold_in(key, 0), len(jax.tree.leaves(experience.rows)[0]), plan)

        def body(carry: Any, numbered: tuple[jax.Array, jax.Array | None]) -> tuple[Any, Any]:
            trainable, opt_state, going, good = carry
            number, chosen = numbered
            rows = experience.rows if chosen is None else jax.tree.map(lambda x: x[chosen], experience.rows)
            done = update(trainable, opt_state, against, rows, jax.random.fold_in(key, number))
            told = reduce.means(done.totals)
            going &= told.get(APPROX_KL, jnp.float32(0)) <= plan.most_kl
            good &= jnp.isfinite(done.loss) & jnp.isfinite(done.grad_norm)
            keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(going, a, b), new, old)
            carry = keep(done.trainable, trainable), keep(done.opt_state, opt_state), going, good
            return carry, (done.loss, done.grad_norm, done.totals, going)

        numbers = jnp.arange(1, 1 + plan.epochs * plan.minibatches)
        start = (state.trainable, state.opt_state, jnp.bool(True), jnp.bool(True))
        (trainable, opt_state, _, good), (losses, norms, totals, applied) = jax.lax.scan(body, start, (numbers, order))
        first = reduce.means(jax.tree.map(lambda x: x[0], totals))
        loss = jnp.mean(losses)
        metrics = {
            "loss": loss,
            "grad_norm": jnp.mean(norms),
            "learning_rate": schedule(state.step),
            **reduce.means(jax.tree.map(jnp.sum, totals)),
            **{f"{name.removesuffix('_avg')}_first": first[name] for name in FIRST if name in first},
            **experience.told,
        }
        if len(numbers) > 1:
            metrics["updates"] = jnp.sum(applied, dtype=jnp.float32)
        good &= loss <= limit
        new = steps.finish(algorithm, state, trainable, opt_state, metrics, good)
        return new, metrics | {"weight": jnp.float32(1), "applied": good.astype(jnp.float32)}

    return step


def _order(key: jax.Array, rows: int, plan: Plan) -> jax.Array | None:
    """Returns the rows of every minibatch [updates, rows of one]; None where there is one, of all rows."""
    if plan.minibatches == 1:  # the order of rows changes nothing but rounding
        return None
    deal = lambda epoch: jax.random.permutation(jax.random.fold_in(key, epoch), rows)
    return jax.vmap(deal)(jnp.arange(plan.epochs)).reshape(plan.epochs * plan.minibatches, rows // plan.minibatches)
