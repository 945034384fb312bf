import jax.numpy as jnp
import numpy as np

from ftjax.losses import reduce, supervised


def test_a_value_without_weight_adds_nothing_even_if_it_is_not_finite():
    values, weights = jnp.array([1.0, jnp.nan, 3.0, jnp.inf]), jnp.array([1.0, 0.0, 2.0, 0.0])
    assert float(reduce.masked_sum(values, weights)) == 7.0
    np.testing.assert_allclose(reduce.masked_mean(values, weights), 7 / 3, rtol=1e-6)


def test_the_mean_of_nothing_is_zero():
    assert float(reduce.masked_mean(jnp.ones(3), jnp.zeros(3))) == 0.0


def test_cross_entropy_is_minus_the_log_probability():
    logps = jnp.array([[-0.5, -2.0]])
    values, metrics = supervised.cross_entropy(logps=logps, entropy=jnp.ones((1, 2)), correct=jnp.zeros((1, 2)))
    np.testing.assert_array_equal(values, -logps)
    assert sorted(metrics) == ["entropy", "mean_token_accuracy"]
