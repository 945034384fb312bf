"""Every loss, the day it appears: a public function of `ftjax.losses` whose arrays are keyword-only."""

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

SIZES = {"B": 4, "T": 6, "pairs": 4}


def arrays(function):
    """The keyword-only array parameters of a function, by name."""
    parameters = inspect.signature(function).parameters.values()
    found = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    return {name: note for name, note in found.items() if getattr(note, "array_type", None) is Array}


MODULES = [importlib.import_module(f"ftjax.losses.{m.name}") for m in pkgutil.iter_modules(ftjax.losses.__path__)]
LOSSES = [
    function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_") and arrays(function)
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f"{f.__module__.rpartition('.')[2]}.{f.__name__}")


def case(loss, seed=0):
    """Log-probabilities below zero of the shapes that the annotations name, and values for the hyper-parameters."""
    keys = iter(jax.random.split(jax.random.key(seed), 50))
    given = {}
    for name, note in arrays(loss).items():
        shape = [SIZES[axis] for axis in note.dim_str.split()]
        given[name] = -jax.random.uniform(next(keys), shape, minval=0.1, maxval=2.0)
    rest = {n: p.annotation for n, p in inspect.signature(loss).parameters.items() if n not in given}
    return given, {name: {float: 0.1, int: 1, bool: False}[kind] for name, kind in rest.items()}


def test_there_are_losses():
    assert [f.__name__ for f in LOSSES if f.__name__ == "cross_entropy"]
    assert all(typing.get_type_hints(f)["return"] for f in LOSSES)


@each_loss
def test_loss_and_metrics_are_per_element_and_finite(loss):
    given, rest = case(loss)
    values, metrics = loss(**given, **rest)
    first = next(iter(given.values()))
    assert values.shape == first.shape
    for name, metric in metrics.items():
        assert metric.shape == values.shape, name
        assert np.isfinite(metric).all(), name


@each_loss
def test_gradients_are_finite_and_an_element_without_weight_has_none(loss):
    given, rest = case(loss)
    weights = jnp.ones(next(iter(given.values())).shape).at[1].set(0.0)
    grads = jax.grad(lambda given: jnp.sum(loss(**given, **rest)[0] * weights))(given)
    assert any(np.abs(np.asarray(g)).max() > 0 for g in grads.values())
    for grad in grads.values():
        assert np.isfinite(grad).all()
        assert not np.asarray(grad)[1].any()


@each_loss
def test_permuting_the_batch_permutes_the_loss(loss):
    given, rest = case(loss)
    order = np.array([2, 0, 3, 1])
    values, _ = loss(**given, **rest)
    moved, _ = loss(**{name: x[order] for name, x in given.items()}, **rest)
    np.testing.assert_allclose(moved, values[order], rtol=1e-6)


@each_loss
def test_jit_changes_nothing(loss):
    given, rest = case(loss)
    values, metrics = loss(**given, **rest)
    jitted, jitted_metrics = jax.jit(lambda given: loss(**given, **rest))(given)
    np.testing.assert_allclose(jitted, values, rtol=1e-6)
    assert jitted_metrics.keys() == metrics.keys()
