import jax
import jax.numpy as jnp
import numpy as np

from ftjax.sampling import warp

LOGITS = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]))


def kept(logits):
    return (np.asarray(logits) > warp.NEVER / 2).tolist()


def test_temperature_sharpens_and_flattens():
    cold = jax.nn.softmax(warp.temperature(LOGITS, jnp.float32(0.5)))
    np.testing.assert_allclose(cold[0], np.array([16, 9, 4, 1]) / 30, rtol=1e-5)


def test_top_k_keeps_the_k_largest_and_zero_keeps_all():
    assert kept(warp.top_k(LOGITS, k=2)) == [[True, True, False, False], [False, False, True, True]]
    np.testing.assert_array_equal(warp.top_k(LOGITS, k=0), LOGITS)


def test_top_p_keeps_the_fewest_tokens_that_hold_the_mass():
    assert kept(warp.top_p(LOGITS, jnp.float32(0.65)))[0] == [True, True, False, False]
    assert kept(warp.top_p(LOGITS, jnp.float32(0.75)))[1] == [False, True, True, True]
    assert kept(warp.top_p(LOGITS, jnp.float32(1e-6)))[0] == [True, False, False, False]
    np.testing.assert_array_equal(warp.top_p(LOGITS, jnp.float32(1.0)), LOGITS)


def test_excluded_tokens_have_probability_zero_and_the_rest_sums_to_one():
    probs = jax.nn.softmax(warp.top_k(LOGITS, k=3))
    assert float(probs[0, 3]) == 0.0
    np.testing.assert_allclose(probs.sum(axis=-1), 1.0, rtol=1e-6)
