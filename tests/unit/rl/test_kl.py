import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.rl import kl


@pytest.fixture(scope="module")
def pair():
    """Log-probabilities of every token under a reference and a policy near it, [1, V], and their KL in float64."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((1, 50))
    logits = np.stack([reference + 0.3 * rng.standard_normal((1, 50)), reference])
    p, q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return p, q, float(np.sum(np.exp(p) * (p - q)))


def expected(estimator, pair):
    """The mean of an estimator over tokens of the policy, by enumeration."""
    p, q, _ = pair
    return float(np.sum(np.exp(p) * np.asarray(estimator(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32)))))


def test_k1_and_k3_are_unbiased_and_k2_is_not(pair):
    exact = pair[2]
    np.testing.assert_allclose([expected(kl.k1, pair), expected(kl.k3, pair)], exact, rtol=1e-5)
    assert abs(expected(kl.k2, pair) / exact - 1) > 0.01


def test_k3_is_never_negative_and_varies_less_than_k1(pair):
    p, q, exact = pair
    one, three = (np.asarray(f(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32))) for f in (kl.k1, kl.k3))
    assert three.min() >= 0
    assert one.min() < 0
    variance = lambda x: np.sum(np.exp(p) * (x - exact) ** 2)
    assert variance(three) < variance(one)


def test_k3_is_zero_where_the_policies_agree_and_finite_where_the_policy_dropped_a_token():
    at = lambda x: float(kl.k3(jnp.array([[x]]), jnp.array([[0.0]]))[0, 0])
    assert at(0.0) == 0.0
    np.testing.assert_allclose(at(1e-3), 0.5e-6, rtol=1e-2)
    assert np.isfinite(at(-500.0))


def test_k3_against_the_policy_of_the_rollout_is_that_of_trl():
    new = np.array([[-1, -0.5, -2], [-0.2, -1.5, -0.7]], np.float32)
    old = np.array([[-1.2, -0.6, -1.5], [-0.2, -1, -1]], np.float32)
    counts = np.array([[1, 1, 0], [1, 1, 1]], bool)
    np.testing.assert_allclose(
        np.asarray(kl.k3(jnp.asarray(new), jnp.asarray(old)))[counts].mean(), 0.0426215, atol=1e-6
    )
    np.testing.assert_allclose(np.asarray(kl.k1(jnp.asarray(new), jnp.asarray(old)))[counts].mean(), 0.02, atol=1e-6)


@pytest.mark.parametrize(("measured", "sign"), [(100.0, 1), (0.0, -1)])
def test_a_controller_at_saturation_has_the_factor_of_the_paper_or_that_of_the_code(measured, sign):
    at = jnp.float32(0.15), jnp.float32(measured)
    np.testing.assert_allclose(kl.adapt_by_paper(*at, target=6.0, gain=0.1) / 0.15, 1 + sign * 0.02, rtol=1e-6)
    by_code = kl.adapt_by_code(*at, target=6.0, horizon=10_000.0, episodes=512)
    np.testing.assert_allclose(by_code / 0.15, 1 + sign * 0.01024, rtol=1e-6)


def test_a_controller_within_its_clip_is_proportional_and_rests_at_the_target():
    step = lambda x: float(kl.adapt_by_paper(jnp.float32(1.0), jnp.float32(x), target=2.0, gain=0.1))
    assert step(2.0) == 1.0
    np.testing.assert_allclose([step(2.2), step(1.8)], [1.01, 0.99], rtol=1e-6)
