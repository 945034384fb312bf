"""Losses of single completions against TRL's numbers and against their formulas in float64."""

import jax
import jax.numpy as jnp
from loss_cases import BETA, B, numbers, sigma, slopes
import numpy as np
import pytest

from ftjax.losses import reduce, unpaired


def test_the_unpaired_losses_are_those_of_trl():
    ratios, desirable = jnp.array([0.5, -0.2, -0.4, 0.3]), jnp.array([1.0, 1.0, 0.0, 0.0])
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
    given = (ratios - 3.0, jnp.full(4, -3.0))
    kto, _ = unpaired.kto(*given, desirable=desirable, kl=jnp.array(0.15), beta=BETA, **weights)
    apo, _ = unpaired.apo_zero_unpaired(*given, desirable=desirable, beta=BETA, **weights)
    np.testing.assert_allclose([jnp.mean(kto), jnp.mean(apo)], [0.497501, 0.497501], atol=6e-7)


def test_the_mismatched_kl_is_a_mean_that_is_never_negative_and_has_no_gradient():
    policy, reference = jnp.array([-1.0, jnp.nan, -2.0]), jnp.array([-2.0, 0.0, -2.5])
    kl = lambda policy, reference, weights: unpaired.mismatched_kl(policy, reference, weights=weights)
    live = jnp.array([1.0, 0.0, 1.0])
    np.testing.assert_allclose(kl(policy, reference, live), 0.75, rtol=1e-6)
    assert float(kl(reference, policy, live)) == 0.0
    assert not np.asarray(jax.grad(kl)(policy, reference, live)).any()


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_an_unpaired_loss_and_its_gradient_are_its_formula(name):
    p, q, _ = (x[0] for x in numbers())
    desirable = np.array([1.0, 0.0, 1.0])
    kl = 0.4 if name == "kto" else 0.0

    def formula(p):
        x = p - q
        return np.where(desirable == 1, 1.5 * (1 - sigma(B * (x - kl))), 0.5 * (1 - sigma(B * (kl - x))))

    given = {"desirable": jnp.asarray(desirable), "beta": B, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    given |= {"kl": jnp.array(kl)} if name == "kto" else {}

    def summed(p):
        values, _ = getattr(unpaired, name)(p, jnp.asarray(q, jnp.float32), **given)
        return jnp.sum(values), values

    grad, values = jax.jit(jax.grad(summed, has_aux=True))(jnp.asarray(p, jnp.float32))
    np.testing.assert_allclose(values, formula(p), rtol=1e-5)
    np.testing.assert_allclose(grad, slopes(formula, p), rtol=1e-5, atol=1e-6)


def test_an_untrained_policy_has_an_unpaired_loss_of_one_half():
    x, desirable = jnp.array([-3.0, -5.0]), jnp.array([1.0, 0.0])
    weights = {"beta": B, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    kto, metrics = unpaired.kto(x, x, desirable=desirable, kl=jnp.array(0.0), **weights)
    apo, _ = unpaired.apo_zero_unpaired(x, x, desirable=desirable, **weights)
    np.testing.assert_allclose(jnp.stack([kto, apo]), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(metrics["kl"], [0.0, 0.0])


def test_metrics_of_single_completions_average_to_those_of_each_label():
    p, q = (jnp.array(x) for x in ([-1.0, -2.0, -3.0, -4.0], [-1.5, -4.0, -2.5, -4.5]))
    desirable, weights = jnp.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])
    of = jax.jit(lambda desirable: unpaired.metrics(p, q, desirable=desirable, weights=jnp.asarray(weights), beta=2.0))
    mean = reduce.means(reduce.totals(of(desirable), jnp.asarray(weights)))
    expected = {"rewards/chosen": 0.0, "logps/chosen": -2.0, "rewards/rejected": 4.0, "logps/rejected": -2.0}
    expected |= {"rewards/margins": -4.0}
    assert mean.keys() == expected.keys()
    np.testing.assert_allclose([mean[name] for name in expected], list(expected.values()), atol=1e-6)
    without = reduce.means(reduce.totals(of(jnp.zeros(4)), jnp.asarray(weights)))
    assert float(without["rewards/chosen"]) == 0.0

    halves = [
        reduce.totals(
            unpaired.metrics(p[at], q[at], desirable=desirable[at], weights=jnp.asarray(weights)[at], beta=2.0),
            jnp.asarray(weights)[at],
        )
        for at in (slice(0, 1), slice(1, 4))  # the first has none of one kind
    ]
    parts = reduce.means(jax.tree.map(jnp.add, *halves))
    np.testing.assert_allclose([parts[name] for name in expected], list(expected.values()), atol=1e-6)
