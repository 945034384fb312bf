"""Adam against itself in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.train import adam


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 0.99999])
def test_a_correction_is_that_of_float64(decay):
    counts = np.array([1, 2, 3, 20, 1000, 10**6], np.int32)
    found = [float(adam.correction(decay, jnp.asarray(count))) for count in counts]
    np.testing.assert_allclose(found, -np.expm1(counts * np.log(decay)) if decay else 1.0, rtol=1e-6)


@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_twenty_updates_are_those_of_float64(b1):
    grads = np.random.default_rng(0).standard_normal((20, 64)) * np.logspace(-6, 2, 64)
    chain = adam.scale_by_adam(b1=b1, b2=0.999, eps=1e-8)
    now, update = chain.init(jnp.zeros(64)), jax.jit(chain.update)
    m = v = 0.0
    for t, grad in enumerate(grads, start=1):
        found, now = update(jnp.asarray(grad, jnp.float32), now)
        m, v = b1 * m + (1 - b1) * grad, 0.999 * v + 0.001 * grad**2
        wanted = (m / (1 - b1**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)


def after(scale, steps, gradient, eps=1e-5):
    """The direction after steps of one gradient, by one program."""
    chain = scale(b1=0.9, b2=0.999, eps=eps)
    once = lambda state, _: chain.update(jnp.float32(gradient), state)[::-1]
    return jax.jit(lambda: jax.lax.scan(once, chain.init(jnp.float32(0)), None, steps)[1][-1])()


@pytest.mark.parametrize(
    ("steps", "gradient", "ratio"), [(1, 1e-3, 1.30), (1, 1e-4, 3.78), (1, 1e-5, 16.3), (1000, 1e-4, 1.02)]
)
def test_steps_of_pytorchs_form_are_larger_than_those_of_tensorflows_as_e10_says(steps, gradient, ratio):
    found = after(adam.scale_by_adam, steps, gradient) / after(adam.scale_by_adam_tf, steps, gradient)
    np.testing.assert_allclose(found, ratio, rtol=5e-3)


def test_tensorflows_form_is_its_formula_in_float64():
    grads = np.random.default_rng(1).standard_normal((20, 64)) * np.logspace(-6, 2, 64)
    chain = adam.scale_by_adam_tf(b1=0.9, b2=0.999, eps=1e-5)
    now, update = chain.init(jnp.zeros(64)), jax.jit(chain.update)
    m = v = 0.0
    for t, grad in enumerate(grads, start=1):
        found, now = update(jnp.asarray(grad, jnp.float32), now)
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        wanted = np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-5)
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)


def test_both_forms_agree_where_eps_is_nothing():
    np.testing.assert_allclose(*(after(f, 3, 0.5, 1e-12) for f in (adam.scale_by_adam, adam.scale_by_adam_tf)))
