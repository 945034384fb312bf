"""Every loss, the day it appears: a public function of `ftjax.losses` that returns values and metrics of elements."""

import functools
import importlib
import inspect
import pkgutil
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np
import pytest

import ftjax.losses

ELEMENTS = 4
SIZES = {"B": ELEMENTS, "T": 6, "pairs": ELEMENTS, "n": ELEMENTS}
# What an array of this name may hold; any other holds log-probabilities or scores, below 0.
HOLDS = {
    "weights": lambda shape: np.ones(shape),
    "present": lambda shape: np.ones(shape),
    "mask": lambda shape: np.ones(shape),
    "lengths": lambda shape: 1 + np.arange(np.prod(shape)).reshape(shape) % 3,
    "margin": lambda shape: np.arange(np.prod(shape)).reshape(shape) % 2,
    "labels": lambda shape: np.arange(np.prod(shape)).reshape(shape) % 2,
    "desirable": lambda shape: np.arange(np.prod(shape)).reshape(shape) % 2,
    "kl": lambda shape: np.full(shape, 0.3),
}
HYPER = {float: 0.1, int: 1, bool: False}


def is_array(note):
    return getattr(note, "array_type", None) is Array


def fields(note):
    """The annotations of a NamedTuple of arrays; of anything else none."""
    found = typing.get_type_hints(note) if hasattr(note, "_fields") else {}
    return found if all(map(is_array, found.values())) else {}


def arrays(function):
    """The parameters of a function that are arrays or NamedTuples of arrays, by name."""
    notes = {name: p.annotation for name, p in inspect.signature(function).parameters.items()}
    return {name: note for name, note in notes.items() if is_array(note) or fields(note)}


def is_loss(function):
    """Whether a function returns (values, metrics by name) of arrays."""
    returned = typing.get_args(typing.get_type_hints(function).get("return"))
    return len(returned) == 2 and is_array(returned[0]) and typing.get_origin(returned[1]) is dict


MODULES = [importlib.import_module(f"ftjax.losses.{m.name}") for m in pkgutil.iter_modules(ftjax.losses.__path__)]
FUNCTIONS = {  # a function of two names once
    function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_") and is_loss(function)
}
NAMES = {f"{f.__module__.rpartition('.')[2]}.{f.__name__}": f for f in FUNCTIONS}
each_loss = pytest.mark.parametrize("loss", [NAMES[name] for name in sorted(NAMES)], ids=sorted(NAMES))
COUPLED = [name for name in sorted(NAMES) if "weights" in arrays(NAMES[name])]


def case(loss, draw=lambda rng, shape: -rng.uniform(0.1, 2.0, shape)):
    """Arrays of the shapes that the annotations name, and values for the hyper-parameters."""
    rng = np.random.default_rng(0)

    def one(name, note):
        shape = [SIZES[axis] for axis in note.dim_str.split()]
        number = jnp.int32 if note.dtypes[0].startswith("int") else jnp.float32
        return jnp.asarray(HOLDS[name](shape) if name in HOLDS else draw(rng, shape), number)

    given = {
        name: note(*(one(name, part) for part in fields(note).values())) if fields(note) else one(name, note)
        for name, note in arrays(loss).items()
    }
    rest = {name: p.annotation for name, p in inspect.signature(loss).parameters.items() if name not in given}
    return given, {name: HYPER[kind] for name, kind in rest.items()}


def differentiable(given):
    return {name: x for name, x in given.items() if name not in HOLDS}


def evaluate(loss, given, rest, counts=None):
    """Returns values, metrics, gradients of the sum of values under counts, one an element, and of all metrics.

    By one program, which compiles faster than its operations do one by one.
    """
    counts = np.ones(ELEMENTS, np.float32) if counts is None else counts
    values, metrics, *grads = _program(loss, tuple(rest.items()))(differentiable(given), given, counts)
    return values, metrics, *map(jax.tree.leaves, grads)


@functools.cache
def _program(loss, rest):
    of = lambda moved, given: loss(**(given | moved), **dict(rest))

    def summed(moved, given, counts):
        values, _ = of(moved, given)
        return jnp.vdot(values.reshape(values.shape[0], -1).sum(axis=1), counts)

    def told(moved, given):
        return sum(map(jnp.sum, of(moved, given)[1].values()))

    def program(moved, given, counts):
        return *of(moved, given), jax.grad(summed)(moved, given, counts), jax.grad(told)(moved, given)

    return jax.jit(program)


def at(given, change):
    """Applies a change to every array that has elements."""
    return jax.tree.map(lambda x: change(np.array(x)) if np.ndim(x) else x, given)


def put(index, value):
    """Returns a change that sets an element."""

    def change(x):
        x[index] = value(x[index])
        return x

    return change


def test_there_are_losses():
    assert {"supervised.cross_entropy", "preference.dpo", "reference_free.orpo", "unpaired.kto"} <= set(NAMES)
    assert {"policy.ppo", "policy.grpo", "policy.gspo", "policy.cispo", "policy.reinforce"} <= set(NAMES)
    assert {"preference.aot", "preference.aot_unpaired"} == set(COUPLED)


@each_loss
def test_loss_and_metrics_are_per_element_and_finite(loss):
    values, metrics, *_ = evaluate(loss, *case(loss))
    assert values.shape[0] == ELEMENTS
    assert np.isfinite(values).all()
    assert metrics
    for name, metric in metrics.items():
        assert metric.shape == values.shape, name
        assert np.isfinite(metric).all(), name


@each_loss
def test_gradients_are_finite_and_an_element_without_weight_has_none(loss):
    given, rest = case(loss)
    counts = np.array([1, 0, 1, 1], np.float32)
    if "weights" in given:
        given["weights"] = counts
    _, _, grads, _ = evaluate(loss, given, rest, counts)
    assert any(np.abs(g).max() > 0 for g in grads)
    for grad in grads:
        assert np.isfinite(grad).all()
        assert not np.asarray(grad)[1].any()


@pytest.mark.parametrize("name", sorted(NAMES.keys() - {"supervised.cross_entropy"}))  # whose metrics are given to it
def test_metrics_carry_no_gradient(name):
    *_, grads = evaluate(NAMES[name], *case(NAMES[name]))
    assert not any(np.asarray(g).any() for g in grads)


@each_loss
@pytest.mark.parametrize("lowest", [-1e4, 0.0])
def test_extreme_and_equal_inputs_give_finite_values_and_gradients(loss, lowest):
    extreme = lambda rng, shape: rng.choice([lowest, -1e-9], shape)
    for draw in (extreme, lambda _, shape: np.full(shape, lowest)):
        values, metrics, grads, _ = evaluate(loss, *case(loss, draw))
        assert all(np.isfinite(x).all() for x in (values, *metrics.values(), *grads))


@each_loss
def test_a_place_of_padding_is_finite(loss):
    given, rest = case(loss)
    values, metrics, grads, _ = evaluate(loss, at(given, put(1, lambda x: 0 * x)), rest)
    assert all(np.isfinite(x).all() for x in (values, *metrics.values(), *grads))


@each_loss
def test_permuting_the_batch_permutes_the_loss(loss):
    given, rest = case(loss)
    order = np.array([2, 0, 3, 1])
    values, metrics, *_ = jax.tree.map(np.asarray, evaluate(loss, given, rest))
    moved, moved_metrics, *_ = evaluate(loss, at(given, lambda x: x[order]), rest)
    np.testing.assert_allclose(moved, values[order], rtol=1e-6)
    for name, metric in metrics.items():
        np.testing.assert_allclose(moved_metrics[name], metric[order], rtol=1e-6, err_msg=name)


@each_loss
def test_only_a_loss_that_takes_weights_lets_an_element_see_another(loss):
    given, rest = case(loss)
    other = given | at(differentiable(given), put(1, lambda x: 3 * x))
    values, changed = (np.asarray(evaluate(loss, x, rest)[0]) for x in (given, other))
    assert (changed[1] != values[1]).any()
    seen = (np.delete(changed, 1, axis=0) != np.delete(values, 1, axis=0)).any()
    assert bool(seen) == ("weights" in given)


@pytest.mark.parametrize("name", COUPLED)
def test_no_element_sees_one_without_weight(name):
    given, rest = case(NAMES[name])
    given["weights"] = np.array([1, 0, 1, 1], np.float32)
    other = given | at(differentiable(given), put(1, lambda x: x * np.nan))
    live = np.array([0, 2, 3])
    values, changed = (np.asarray(evaluate(NAMES[name], x, rest)[0])[live] for x in (given, other))
    np.testing.assert_array_equal(changed, values)
    smaller, *_ = evaluate(NAMES[name], at(given, lambda x: x[live]), rest, np.ones(3, np.float32))
    np.testing.assert_allclose(values, smaller, rtol=1e-6)


@each_loss
def test_jit_changes_nothing(loss):
    given, rest = case(loss)
    values, metrics = loss(**given, **rest)
    jitted, jitted_metrics, *_ = evaluate(loss, given, rest)
    np.testing.assert_allclose(jitted, values, rtol=1e-6, atol=1e-7)
    assert jitted_metrics.keys() == metrics.keys()
    for name, metric in metrics.items():
        np.testing.assert_allclose(jitted_metrics[name], metric, rtol=1e-6, atol=1e-7, err_msg=name)
