import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.losses import policy, reduce

# The batch of interop.md, section 3, and what TRL's formulas give on it.
MASK = np.array([[1, 1, 0], [1, 1, 1]], np.float32)
NEW = np.array([[-1, -0.5, -2], [-0.2, -1.5, -0.7]], np.float32)
OLD = np.array([[-1.2, -0.6, -1.5], [-0.2, -1, -1]], np.float32)
ADVANTAGES = np.array([[1, -0.5, 0.3], [-1, 0.8, 0.4]], np.float32)
VALUES = np.array([[0.5, 0.1, 0], [1, -0.4, 0.3]], np.float32)
OLD_VALUES = np.array([[0.1, 0.2, 0], [0.9, 0.3, 0.3]], np.float32)
RETURNS = np.array([[0.7, -0.1, 0], [0.2, 0, 0.5]], np.float32)


def ppo(logps=NEW, old_logps=OLD, advantages=ADVANTAGES, low=0.2, high=0.2):
    logps, old_logps, advantages = (jnp.asarray(x) for x in (logps, old_logps, advantages))
    return policy.ppo(logps=logps, old_logps=old_logps, advantages=advantages, clip_low=low, clip_high=high)


def value(values=VALUES, old_values=OLD_VALUES, returns=RETURNS, clip=0.2):
    values, old_values, returns = (jnp.asarray(x) for x in (values, old_values, returns))
    return policy.value(values=values, old_values=old_values, returns=returns, clip=clip)


def test_losses_and_metrics_are_those_of_trl():
    losses, metrics = ppo()
    mean = lambda x: reduce.masked_mean(x, jnp.asarray(MASK))
    np.testing.assert_allclose(
        metrics["val/ratio"].ravel(), [1.221403, 1.105171, 0.606531, 1, 0.606531, 1.349859], atol=1e-6
    )
    np.testing.assert_allclose(mean(losses), -0.1225278, atol=1e-6)
    np.testing.assert_allclose(mean(metrics["policy/clipfrac_avg"]), 0.4, atol=1e-6)
    np.testing.assert_allclose(jnp.mean(metrics["policy/approxkl_avg"]), 0.0533333, atol=1e-6)
    np.testing.assert_allclose(mean(value()[0]), 0.104, atol=1e-6)


def test_losses_are_their_formulas_in_float64():
    rng = np.random.default_rng(0)
    new, old, advantages = -rng.random((4, 6)), -rng.random((4, 6)), rng.standard_normal((4, 6))
    ratio = np.exp(new - old)
    surrogate = np.minimum(advantages * ratio, advantages * np.clip(ratio, 0.9, 1.3))
    single = lambda *arrays: [x.astype(np.float32) for x in arrays]
    np.testing.assert_allclose(ppo(*single(new, old, advantages), low=0.1, high=0.3)[0], -surrogate, atol=1e-6)
    values, before, returns = rng.standard_normal((3, 4, 6))
    near = np.clip(values, before - 0.5, before + 0.5)
    wanted = 0.5 * np.maximum((values - returns) ** 2, (near - returns) ** 2)
    found, metrics = value(*single(values, before, returns), clip=0.5)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    further = (near - returns) ** 2 > (values - returns) ** 2
    np.testing.assert_array_equal(metrics["val/clipfrac_avg"], further)


def test_the_first_update_after_a_rollout_has_the_ratio_one_and_the_policy_gradient():
    losses, metrics = ppo(old_logps=NEW)
    np.testing.assert_array_equal(metrics["val/ratio"], np.ones_like(NEW))
    assert not metrics["policy/approxkl_avg"].any()
    assert not metrics["policy/clipfrac_avg"].any()
    np.testing.assert_array_equal(losses, -ADVANTAGES)
    gradient = jax.grad(lambda logps: jnp.sum(ppo(logps, NEW)[0]))(jnp.asarray(NEW))
    np.testing.assert_allclose(gradient, -ADVANTAGES, rtol=1e-6)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"),
    [(0.5, 1.0, False), (-0.5, 1.0, True), (0.5, -1.0, True), (-0.5, -1.0, False), (0.1, 1.0, True)],
)
def test_a_token_outside_of_the_clip_moves_only_back_towards_it(log_ratio, advantage, moves):
    old = jnp.array([[-1.0]])
    gradient = jax.grad(lambda x: jnp.sum(ppo(x, old, jnp.array([[advantage]]))[0]))(old + log_ratio)
    assert bool(gradient[0, 0] != 0) == moves


def test_a_wider_upper_clip_lets_good_tokens_rise_further_and_changes_no_other():
    """Ratios 1.22 and 1.35 are above 1.2 with a positive advantage."""
    narrow, wide = ppo()[0], ppo(high=0.28)[0]
    np.testing.assert_array_equal(wide < narrow, [[True, False, False], [False, False, True]])
    np.testing.assert_array_equal(wide == narrow, [[False, True, True], [True, True, False]])


def test_a_token_that_the_policy_has_dropped_or_found_is_finite():
    far = jnp.array([[-200.0, -0.1]])
    loss = lambda x: ppo(x, far[:, ::-1], jnp.array([[-1.0, -1.0]]))
    assert np.isfinite(loss(far)[0]).all()
    assert np.isfinite(jax.grad(lambda x: jnp.sum(loss(x)[0]))(far)).all()


def test_a_value_that_moved_past_the_clip_towards_its_return_has_no_gradient():
    """Of the values of row 0: .4 towards the return, .1 towards it, none."""
    gradient = jax.grad(lambda v: jnp.sum(value(v)[0]))(jnp.asarray(VALUES))
    np.testing.assert_allclose(gradient[0], [0.0, 0.2, 0.0], atol=1e-6)
    assert float(value()[1]["val/clipfrac_avg"][0, 0]) == 1.0
