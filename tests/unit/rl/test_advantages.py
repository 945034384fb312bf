import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.rl import advantages, kl

BLOG = jnp.array([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])
EVERY = jnp.ones((3, 3))


def case(seed=0, rows=3, length=5):
    """Rewards, values and weights of completions of 5, 3 and 1 tokens."""
    rng = np.random.default_rng(seed)
    weights = (np.arange(length) < np.array([[5], [3], [1]])).astype(np.float32)
    return *(rng.standard_normal((2, rows, length)).astype(np.float32)), weights


def gae(rewards, values, weights, gamma=1.0, lam=0.95):
    arrays = {"rewards": rewards, "values": values, "weights": weights}
    return advantages.gae(**{name: jnp.asarray(x) for name, x in arrays.items()}, gamma=gamma, lam=lam)


def test_rewards_and_advantages_are_those_of_trl():
    """The case of interop.md, section 3: the score is at the place after the last token where there is one."""
    rng = np.random.default_rng(0)
    logps, reference, values = -rng.random((2, 4)), -rng.random((2, 4)), rng.standard_normal((2, 4))
    ends, places = jnp.array([3, 2]), np.arange(4)
    tokens = jnp.asarray((places <= np.array([[3], [1]])).astype(np.float32))
    states = jnp.asarray((places <= np.array([[3], [2]])).astype(np.float32))
    logps, reference = (jnp.where(tokens != 0, jnp.asarray(x, jnp.float32), 1.0) for x in (logps, reference))
    values = jnp.asarray(values, jnp.float32)
    rewards = advantages.token_rewards(
        penalties=0.05 * kl.k1(logps, reference), scores=jnp.array([1.0, -0.5]), ends=ends, weights=states
    )
    wanted = [[0.004667, -0.033264, -0.038744, 1.000689], [-0.002207, 0.043959, -0.5, 0]]
    np.testing.assert_allclose(rewards, wanted, atol=2e-6)
    raw = gae(rewards, values, states)
    wanted = [[1.391105, 1.219452, 0.552406, -0.041824], [-0.246435, -1.830765, 0.165195, 0]]
    np.testing.assert_allclose(raw, wanted, atol=2e-6)
    wanted = [[0.846846, 0.903152, 0.964037, 1.000689], [-0.37497, -0.464301, -0.5, 0]]
    np.testing.assert_allclose(raw + values * states, wanted, atol=2e-6)
    wanted = [[1.031607, 0.886116, 0.320739, -0.18292], [-0.356345, -1.699197, 0, 0]]
    np.testing.assert_allclose(advantages.whiten(raw, tokens, ddof=1, eps=1e-8), wanted, atol=2e-6)


def test_gae_is_its_sum_in_float64():
    rewards, values, weights = case()
    r, v = (np.where(weights, x, 0.0).astype(np.float64) for x in (rewards, values))
    later = np.concatenate([v[:, 1:], np.zeros((3, 1))], axis=1)
    deltas = r + 0.9 * later - v
    wanted = [[sum(0.72**k * row[t + k] for k in range(5 - t)) for t in range(5)] for row in deltas]
    np.testing.assert_allclose(gae(rewards, values, weights, gamma=0.9, lam=0.8), wanted * (weights > 0), atol=1e-5)


def test_gae_with_lambda_one_is_monte_carlo_less_the_value():
    rewards, values, weights = case(1)
    to_go = np.cumsum((rewards * weights)[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(gae(rewards, values, weights, lam=1.0), (to_go - values) * weights, atol=1e-5)


def test_gae_with_lambda_zero_is_the_error_of_one_step():
    rewards, values, weights = case(2)
    kept = values * weights
    later = np.concatenate([kept[:, 1:], np.zeros((3, 1), np.float32)], axis=1)
    wanted = (rewards + later - values) * weights
    np.testing.assert_allclose(gae(rewards, values, weights, lam=0.0), wanted, atol=1e-6)


def test_advantages_do_not_know_what_stands_in_the_padding():
    rewards, values, weights = case(3)
    junk = np.where(weights, 0.0, np.nan).astype(np.float32)
    np.testing.assert_array_equal(gae(rewards + junk, values + junk, weights), gae(rewards, values, weights))
    turned = [np.ascontiguousarray(np.roll(x, 2, axis=1)[1:2]) for x in (rewards, values, weights)]  # padding in front
    np.testing.assert_array_equal(np.roll(gae(*turned), -2, axis=1), gae(rewards, values, weights)[1:2])


@pytest.mark.parametrize(
    ("ddof", "first", "last"),
    [(0, [0.05080712, 0.4381051, 0.8254035], [2.3745968, 2.7618952, 3.1491938]), (1, [0.1394, 0.5046, 0.8697], None)],
)
def test_rescaling_gives_the_constants_of_the_n_details(ddof, first, last):
    found = advantages.rescale(BLOG, EVERY, ddof=ddof, eps=1e-8)
    np.testing.assert_allclose(found[0], first, atol=1e-6 if ddof == 0 else 1e-4)
    if last is not None:
        np.testing.assert_allclose(found[2], last, atol=1e-6)


def test_whitening_is_rescaling_without_the_mean():
    found = advantages.whiten(BLOG, EVERY, ddof=0, eps=1e-8)
    np.testing.assert_allclose(found, advantages.rescale(BLOG, EVERY, ddof=0, eps=1e-8) - 1.6, atol=1e-6)
    np.testing.assert_allclose([jnp.mean(found), jnp.std(found)], [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("function", [advantages.whiten, advantages.rescale])
def test_moments_are_those_of_the_elements_that_count(function):
    weights = jnp.array([[0.0, 1.0, 1.0, 0.0]])
    found = function(jnp.array([[jnp.nan, 2.0, 3.0, jnp.inf]]), weights, ddof=1, eps=0.0)
    mean = 2.5 if function is advantages.rescale else 0.0
    np.testing.assert_allclose(found, [[0.0, mean - 0.5**0.5, mean + 0.5**0.5, 0.0]], rtol=1e-6)


def test_a_single_element_is_whitened_to_zero():
    assert advantages.whiten(jnp.array([[3.0, 5.0]]), jnp.array([[1.0, 0.0]]), ddof=1, eps=1e-8).tolist() == [[0, 0]]
