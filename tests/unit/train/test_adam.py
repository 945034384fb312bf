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
