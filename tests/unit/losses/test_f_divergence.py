"""f-divergences in place of the reverse KL, and weights of tokens and pairs."""

import jax
import jax.numpy as jnp
from loss_cases import FORMULAS, SETS, TWO_TOKENS, log_sigma, logps, numbers, run
import numpy as np
import pytest

from ftjax.losses import divergence, preference, weighting
from ftjax.losses.preference import PairLengths, PairLogps

DIVERGENCES = {
    "forward_kl": divergence.forward_kl,
    "js_divergence": divergence.js_divergence,
    "alpha_divergence": lambda x: divergence.alpha_divergence(x, coefficient=0.5),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("forward_kl", (0.231049, 0.684896)),
        ("js_divergence", (0.386012, 0.689454)),
        ("alpha_divergence", (0.231049, 0.685830)),
    ],
)
def test_dpo_under_an_f_divergence_is_that_of_trl(name, expected):
    for (policy, reference), mean in zip(SETS, expected, strict=True):
        scores = divergence.shaped(policy, reference, DIVERGENCES[name])
        values, _ = run("dpo", *scores, TWO_TOKENS, {"label_smoothing": 0.0})
        np.testing.assert_allclose(np.mean(values), mean, atol=6e-7)


@pytest.mark.parametrize("name", ["reverse_kl", *DIVERGENCES])
def test_a_divergence_begins_as_dpo_and_never_turns(name):
    f = DIVERGENCES.get(name, divergence.reverse_kl)
    np.testing.assert_allclose(f(jnp.zeros(1)), 0.0, atol=1e-7)
    slope = jax.vmap(jax.grad(lambda x: f(x[None])[0]))
    assert (slope(jnp.linspace(-70.0, 70.0, 29)) >= 0).all()
    np.testing.assert_allclose(slope(jnp.zeros(1)), 0.5 if name == "js_divergence" else 1.0, rtol=1e-6)


def test_the_alpha_divergence_goes_from_forward_to_reverse_kl():
    x = jnp.linspace(-3.0, 3.0, 7)
    alpha = lambda coefficient: divergence.alpha_divergence(x, coefficient=coefficient)
    np.testing.assert_allclose(alpha(0.0), divergence.forward_kl(x), rtol=1e-6)
    np.testing.assert_array_equal(alpha(1.0), x)
    np.testing.assert_allclose(alpha(1.001), x, rtol=2e-3)


@pytest.mark.parametrize("name", sorted(set(divergence.DIFFERENCE_BASED) - {"sigmoid", "ipo"}))
def test_a_loss_is_finite_under_each_divergence(name):
    policy, reference = logps([-1e4, -1.0, -1.0], [-1.0, -1e4, -1.0]), logps([-1.0] * 3, [-1.0] * 3)
    hyper = FORMULAS[name].hyper
    values = lambda policy: jnp.stack(
        [run(name, *divergence.shaped(policy, reference, f), TWO_TOKENS, hyper)[0] for f in DIVERGENCES.values()]
    )
    values, slopes = jax.jit(lambda policy: (values(policy), jax.jacobian(values)(policy)))(policy)
    assert np.isfinite(values).all()
    assert np.isfinite(np.stack(slopes)).all()


def test_shaping_keeps_small_differences_of_long_completions():
    reference, by = logps([-500.0], [-700.0]), logps([0.001], [-0.002])
    policy = PairLogps(*(x + y for x, y in zip(reference, by, strict=True)))
    ratios = preference.ratios(policy, reference)  # what is left of `by`
    scores, zeros = divergence.shaped(policy, reference, divergence.js_divergence)
    expected = np.log(2) + log_sigma(np.stack(ratios).astype(np.float64))
    np.testing.assert_allclose(np.stack(preference.ratios(scores, zeros)), expected, atol=2e-7)


def test_ld_alpha_weighs_the_tokens_past_the_shorter_completion():
    weights, beyond = jnp.array([[1.0, 1, 1, 0], [1, 1, 0, 0]]), jnp.array([[0.0, 0, 1, 0], [0, 0, 0, 0]])
    found = weighting.length_desensitized(weights, beyond, ld_alpha=0.25)
    np.testing.assert_array_equal(found, [[1, 1, 0.25, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(weighting.length_desensitized(weights, beyond, ld_alpha=1.0), weights)


def test_wpo_weighs_a_pair_by_how_likely_both_completions_are_and_has_no_gradient():
    p, q, n = numbers()  # q in place of log sum p^2
    weights = lambda policy: weighting.wpo(policy, logps(*q), lengths=logps(*n, PairLengths))
    np.testing.assert_allclose(weights(logps(*p)), np.exp(np.sum((p - q) / n, axis=0)), rtol=1e-5)
    slope = jax.grad(lambda policy: jnp.sum(weights(policy)))(logps(*p))
    assert not np.stack(slope).any()
