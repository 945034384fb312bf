"""Losses of reward models against TRL's numbers and against their formulas in float64."""

import itertools

import jax
import jax.numpy as jnp
from loss_cases import LN2, log_sigma, slopes
import numpy as np
import pytest

from ftjax.losses import reward

CHOSEN, REJECTED = jnp.array([1, 0.2, -0.3]), jnp.array([0.5, 0.4, -1.3])  # interop.md, 2f: TRL 1.16 on the CPU
NONE = jnp.zeros(3)
TERRY = jax.jit(lambda chosen, rejected, margin: reward.bradley_terry(chosen, rejected, margin=margin))


@pytest.mark.parametrize(("margin", "mean"), [([0.0, 0.0, 0.0], 0.528493), ([0.0, 0.5, 1.0], 0.756803)])
def test_bradley_terry_is_that_of_trl(margin, mean):
    values, _ = TERRY(CHOSEN, REJECTED, jnp.array(margin))
    np.testing.assert_allclose(np.mean(values), mean, atol=6e-7)


def test_centring_is_that_of_trl():
    values, _ = reward.centring(CHOSEN, REJECTED, coefficient=0.01)
    np.testing.assert_allclose(np.mean(values), 0.0172333, atol=6e-8)


def test_the_metrics_average_to_those_of_trl():
    _, metrics = TERRY(CHOSEN, REJECTED, jnp.ones(3))
    mean = {name: float(np.mean(x)) for name, x in metrics.items()}
    scores = np.concatenate([CHOSEN, REJECTED])
    expected = {"accuracy": 2 / 3, "margin": 1.3 / 3, "mean_reward": scores.mean()}
    expected |= {"rewards/chosen": float(CHOSEN.mean()), "rewards/rejected": float(REJECTED.mean())}
    assert mean.keys() == expected.keys()
    np.testing.assert_allclose([mean[name] for name in expected], list(expected.values()), rtol=1e-6)


def test_equal_scores_cost_log_two_and_are_no_success():
    values, metrics = TERRY(CHOSEN, CHOSEN, NONE)
    np.testing.assert_allclose(values, LN2, rtol=1e-6)
    assert not np.asarray(metrics["accuracy"]).any()


SCORES = np.array([[0.7, -1.2, 0.3, 2.0], [-0.4, 0.9, 1.1, -2.0], [0.2, 0.1, -0.6, 0.5]])
LABELS = np.array([1.0, 0.0, 0.3, 0.8])


FORMULAS = {
    "bradley_terry": (
        lambda s: -log_sigma(s[0] - s[1] - [0.0, 0.5, 1.0, 0.2]),
        lambda s: reward.bradley_terry(s[0], s[1], margin=jnp.array([0.0, 0.5, 1.0, 0.2])),
        SCORES[:2],
    ),
    "centring": (
        lambda s: 0.3 * (s[0] + s[1]) ** 2,
        lambda s: reward.centring(s[0], s[1], coefficient=0.3),
        SCORES[:2],
    ),
    "pointwise": (
        lambda s: -LABELS * log_sigma(s) - (1 - LABELS) * np.log(1 - np.exp(log_sigma(s))),
        lambda s: reward.pointwise(s, labels=jnp.asarray(LABELS, jnp.float32)),
        SCORES[0],
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_and_its_gradient_are_its_formula(name):
    formula, loss, scores = FORMULAS[name]
    summed = lambda s: (lambda values: (jnp.sum(values), values))(loss(s)[0])
    grads, values = jax.jit(jax.grad(summed, has_aux=True))(jnp.asarray(scores, jnp.float32))
    np.testing.assert_allclose(values, formula(scores), rtol=1e-5)
    np.testing.assert_allclose(grads, slopes(formula, scores), rtol=1e-5, atol=1e-6)


def test_a_pair_of_k_ranked_ones_weighs_what_instructgpt_gives_it():
    """Their eq. 1: the mean over the K (K - 1) / 2 pairs of a prompt, however many other prompts have."""
    better, worse = np.triu_indices(4, 1)
    scores = SCORES[0].astype(np.float32)
    values, _ = TERRY(scores[better], scores[worse], jnp.zeros(6))
    expected = -np.mean([log_sigma(SCORES[0][b] - SCORES[0][w]) for b, w in itertools.combinations(range(4), 2)])
    np.testing.assert_allclose(np.vdot(values, np.full(6, 1 / 6)), expected, rtol=1e-6)
