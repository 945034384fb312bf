"""Epochs of minibatches over one experience, on a toy: what trains is one number a row, and its gradient is -1."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftjax.algorithms import on_policy
from ftjax.algorithms.algorithm import Algorithm
from ftjax.train import epochs, state

ROWS = 8
INF = jnp.float32(jnp.inf)


class Row(NamedTuple):
    number: jax.Array
    scale: jax.Array  # of its gradient and of its approxkl


def loss(trainable, base, batch, key):
    """Returns -w of each row, and how far the row has moved as approxkl."""
    del base, key
    own = trainable[batch.number]
    moved = jax.lax.stop_gradient(own)
    told = {"policy/approxkl_avg": moved, "val/ratio": 1 + moved}
    return -own * batch.scale, jnp.ones_like(own), told


TOY = Algorithm(init=lambda *_: jnp.zeros(ROWS), experience=None, loss=loss)


def experience(scale=1.0):
    scales = jnp.broadcast_to(jnp.asarray(scale, jnp.float32), ROWS)
    return on_policy.Experience(Row(jnp.arange(ROWS), scales), {"objective/kl": jnp.float32(3.0)})


def build(plan, rates):
    """Returns the state and the step; update n has the rate `rates[n]` times the rows of a minibatch.

    So each row's number gains `rates[n]` in the update that has it.
    """
    size = ROWS // plan.minibatches
    chain = optax.sgd(lambda count: size * jnp.asarray(rates, jnp.float32)[count])
    start = state.init(jnp.zeros(ROWS), chain, jax.random.key(4))
    return start, jax.jit(epochs.make(TOY, chain, lambda step: 0.25 + step, microbatches=1, plan=plan))


@pytest.fixture(scope="module")
def four():
    """Two epochs of two minibatches; a row's number has a digit for each update that it was in."""
    return build(epochs.Plan(2, 2, float("inf")), (1, 10, 100, 1000) * 2)


def digits(values):
    return np.array([list(f"{round(value):04d}"[::-1]) for value in np.asarray(values)], int)


def test_every_row_is_in_one_minibatch_of_every_epoch_and_the_next_epoch_deals_anew(four):
    """(16)"""
    start, step = four
    after, told = step(start, None, experience(), INF)
    seen = digits(after.trainable)
    np.testing.assert_array_equal(seen[:, :2].sum(axis=1), 1)
    np.testing.assert_array_equal(seen[:, 2:].sum(axis=1), 1)
    np.testing.assert_array_equal(seen.sum(axis=0), ROWS // 2)
    assert (seen[:, 0] != seen[:, 2]).any(), "the second epoch has the order of the first"
    assert float(told["updates"]) == 4
    assert int(after.step) == 1
    again, _ = step(after, None, experience(), INF)
    other = digits(again.trainable - after.trainable)
    assert (other[:, 0] != seen[:, 0]).any(), "the second step has the order of the first"


def test_metrics_are_means_over_updates_those_of_the_first_one_and_what_the_experience_tells(four):
    start, step = four
    _, told = step(start, None, experience(), INF)
    seen = digits(step(start, None, experience(), INF)[0].trainable)
    first = seen[:, 0] * 1 + seen[:, 1] * 10  # what a row has when the second epoch begins
    before = [0.0, 0.0, first[seen[:, 2] == 1].mean(), first[seen[:, 3] == 1].mean()]
    np.testing.assert_allclose(told["policy/approxkl_avg"], np.mean(before), rtol=1e-6)
    assert float(told["policy/approxkl_first"]) == 0.0
    assert float(told["val/ratio_first"]) == 1.0
    assert float(told["objective/kl"]) == 3.0
    assert float(told["learning_rate"]) == 0.25


def test_the_update_that_would_go_too_far_is_not_applied_nor_any_after_it():
    """The third one sees rows at 2 or 20 on average, above 1: what is kept is the state after the second."""
    plan = epochs.Plan(2, 2, 1.0)
    start, step = build(plan, (1, 10, 100, 1000))
    after, told = step(start, None, experience(), INF)
    assert float(told["updates"]) == 2
    assert float(told["applied"]) == 1
    seen = digits(after.trainable)
    np.testing.assert_array_equal(seen[:, :2].sum(axis=1), 1)
    assert not seen[:, 2:].any()
    assert [int(x) for x in jax.tree.leaves(after.opt_state)] == [2], "the optimizer counts what is kept"


@pytest.mark.parametrize(("scale", "limit"), [(jnp.nan, INF), (jnp.inf, INF), (1.0, jnp.float32(-1e9))])
def test_a_step_with_an_update_that_must_not_count_changes_nothing(four, scale, limit):
    """One row of eight is spoiled, so some updates are good."""
    start, step = four
    scales = jnp.ones(ROWS).at[5].set(scale)
    after, told = step(start, None, experience(scales), limit)
    assert float(told["applied"]) == 0
    np.testing.assert_array_equal(after.trainable, start.trainable)
    assert int(after.step) == 0


def test_one_minibatch_takes_all_rows_in_every_epoch():
    start, step = build(epochs.Plan(3, 1, float("inf")), (1, 10, 100))
    after, _ = step(start, None, experience(), INF)
    np.testing.assert_allclose(after.trainable, 111.0)
