"""Losses of pairs against TRL's numbers and against their formulas in float64."""

import inspect

import jax
import jax.numpy as jnp
from loss_cases import BETA, FORMULAS, LN2, SETS, TWO_TOKENS, B, logps, numbers, run, sigma, slopes
import numpy as np
import pytest

from ftjax.losses import preference, reference_free
from ftjax.losses.preference import PairLengths

GOLDEN = {
    "dpo": ({"label_smoothing": 0.0}, 0.377779, 0.686689),
    "hinge": ({}, 0.333333, 0.986667),
    "ipo": ({}, 16.666666, 24.375000),
    "exo_pair": ({"label_smoothing": 1e-3}, 1.498837, 2.738421),
    "nca_pair": ({}, 1.234520, 1.383053),
    "robust": ({"label_smoothing": 0.1}, 0.252779, 0.685022),
    "bco_pair": ({}, 1.082063, 1.379761),
    "sppo_hard": ({}, 128.546661, 48.773335),
    "aot": ({"label_smoothing": 0.0}, 0.377779, 0.686689),
    "aot_unpaired": ({"label_smoothing": 0.0}, 0.377016, 0.686539),
    "apo_zero": ({}, 0.800323, 0.996667),
    "apo_down": ({}, 0.789387, 0.998334),
    "discopop": ({"tau": 0.05}, 0.449929, 0.852320),
    "sft": ({}, 1.916667, 1.500000),
    "sigmoid_norm": ({}, 0.493495, 0.689866),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_loss_is_that_of_trl(name):
    hyper, *expected = GOLDEN[name]
    for (policy, reference), mean in zip(SETS, expected, strict=True):
        values, _ = run(name, policy, reference, TWO_TOKENS, hyper)
        np.testing.assert_allclose(np.mean(values), mean, rtol=2e-7, atol=6e-7)  # half of the last digit, and float32


def test_a_weighted_sum_of_losses_is_that_of_trl():
    policy, reference = SETS[0]
    dpo, bco = (run(name, policy, reference, TWO_TOKENS, GOLDEN[name][0])[0] for name in ("dpo", "bco_pair"))
    np.testing.assert_allclose(np.mean(0.8 * np.asarray(dpo) + 0.2 * np.asarray(bco)), 0.518636, atol=6e-7)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, (-0.0266667, -1.0266666, 0.666667, 1.0, -3.833333, -17.033333)),
        (1, (0.0066667, -0.0066667, 0.666667, 0.0133333, -3.0, -3.433333)),
    ],
)
def test_the_metrics_are_those_of_trl(index, expected):
    kinds = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")
    found = preference.metrics(*SETS[index], beta=BETA)
    means = {name: float(np.mean(x)) for name, x in found.items()}
    assert list(means) == [*kinds, "logps/chosen", "logps/rejected"]
    np.testing.assert_allclose(list(means.values()), expected, rtol=1e-6, atol=6e-7)


def test_every_loss_of_a_reference_reports_the_same_metrics():
    policy, reference = SETS[0]
    expected = preference.metrics(policy, reference, beta=BETA)
    for name in GOLDEN.keys() - {"sft"}:
        _, found = run(name, policy, reference, TWO_TOKENS, GOLDEN[name][0])
        jax.tree.map(np.testing.assert_array_equal, found, expected)


MEANS = logps([-1, -1.5, -2], [-1.25, -1.4, -2.5])
ONE_TOKEN = logps([1, 1, 1], [1, 1, 1], PairLengths)


@pytest.mark.parametrize(("beta", "gamma", "mean"), [(0.1, 0.5, 0.960717), (2.0, 1.0, 1.043502)])
def test_simpo_is_that_of_trl(beta, gamma, mean):
    hyper = {"beta": beta, "gamma": gamma, "label_smoothing": 0.0}
    values, _ = run("simpo", MEANS, MEANS, ONE_TOKEN, hyper)
    np.testing.assert_allclose(np.mean(values), mean, atol=6e-7)


def test_orpo_is_that_of_trl():
    values, metrics = run("orpo", MEANS, MEANS, ONE_TOKEN, {"beta": 0.1})
    np.testing.assert_allclose(metrics["log_odds_chosen"], [0.371096, -0.130673, 0.559763], atol=6e-7)
    np.testing.assert_allclose(np.mean(metrics["nll_loss"]), 1.5, atol=1e-6)
    np.testing.assert_allclose(np.mean(values), 1.557909, atol=6e-7)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_and_its_gradient_are_its_formula(name):
    x, formula = numbers(), FORMULAS[name]
    reference, lengths = logps(*x.reference), logps(*x.lengths, PairLengths)

    def summed(policy):
        values, _ = run(name, policy, reference, lengths, formula.hyper | {"beta": B})
        return jnp.sum(values), values

    grads, values = jax.jit(jax.grad(summed, has_aux=True))(logps(*x.policy))  # one program compiles faster
    np.testing.assert_allclose(values, formula.loss(x), rtol=1e-5, atol=1e-7)
    expected = slopes(lambda policy: formula.loss(x._replace(policy=policy)), x.policy)
    np.testing.assert_allclose(np.stack(grads), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, formula in FORMULAS.items() if formula.at_start is not None])
def test_an_untrained_policy_has_the_known_loss(name):
    x, formula = numbers(), FORMULAS[name]
    policy, lengths = logps(*x.policy), logps(*x.lengths, PairLengths)
    values, metrics = run(name, policy, policy, lengths, formula.hyper | {"beta": B})
    np.testing.assert_allclose(values, formula.at_start, rtol=1e-6)
    assert not np.asarray(metrics["rewards/margins"]).any()


def test_dpo_of_an_untrained_policy_is_log_two():
    values, _ = run("dpo", SETS[0][0], SETS[0][0], TWO_TOKENS, {"label_smoothing": 0.0})
    np.testing.assert_allclose(values, LN2, rtol=0, atol=1e-6)


def test_every_pair_loss_has_a_formula():
    public = lambda module: {
        f.__name__
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__ and not name.startswith("_") and inspect.signature(f).return_annotation
        == preference.Loss
    }  # fmt: skip
    assert public(preference) | public(reference_free) == set(FORMULAS)


def test_dpo_pulls_in_proportion_to_how_wrong_the_rewards_are():
    policy, reference = (logps(*x) for x in numbers()[:2])
    found = preference.metrics(policy, reference, beta=B)
    loss = lambda p: run("dpo", p, reference, TWO_TOKENS, {"beta": B, "label_smoothing": 0.0})[0]
    grads = jax.grad(lambda p: jnp.sum(loss(p)))(policy)
    weight = B * sigma(np.asarray(found["rewards/rejected"] - found["rewards/chosen"], np.float64))
    np.testing.assert_allclose(grads.chosen, -weight, rtol=1e-5)
    np.testing.assert_allclose(grads.rejected, weight, rtol=1e-5)


def test_ipo_of_single_tokens_is_the_papers_form():
    x = numbers()
    values, _ = run("ipo", logps(*x.policy), logps(*x.reference), ONE_TOKEN, {"beta": B})
    np.testing.assert_allclose(values, (x.difference - 1 / (2 * B)) ** 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_padding_changes_nothing_of_a_sorted_loss(name):
    x, hyper = numbers(), FORMULAS[name].hyper | {"beta": B}
    weights, live = jnp.array([1.0, 0.0, 1.0]), np.array([0, 2])
    padded = lambda policy: run(name, policy, logps(*x.reference), TWO_TOKENS, hyper, weights)[0]
    alone = lambda policy: run(name, policy, logps(*x.reference[:, live]), TWO_TOKENS, hyper)[0]
    np.testing.assert_allclose(padded(logps(*x.policy))[live], alone(logps(*x.policy[:, live])), rtol=1e-6)
    slope = jax.grad(lambda policy: jnp.vdot(padded(policy), weights))(logps(*x.policy))
    smaller = jax.grad(lambda policy: jnp.sum(alone(policy)))(logps(*x.policy[:, live]))
    np.testing.assert_allclose(np.stack(slope)[:, live], np.stack(smaller), rtol=1e-6)
    assert not np.stack(slope)[:, 1].any()


@pytest.mark.parametrize(
    ("loss", "smoothing"), [(preference.robust, 0.5), (preference.robust, -0.1), (preference.exo_pair, 0.0)]
)
def test_smoothing_that_makes_a_loss_undefined_is_refused(loss, smoothing):
    with pytest.raises(ValueError, match=f"label_smoothing {smoothing} of {loss.__name__} is not in"):
        loss(*SETS[0], beta=BETA, label_smoothing=smoothing)


def test_stable_forms_are_exact_where_plain_ones_overflow():
    far, zero = logps([-1e4, 0.0, 0.0], [0.0, -1e4, 0.0]), logps([0.0] * 3, [0.0] * 3)
    values = lambda name, **hyper: run(name, far, zero, ONE_TOKEN, {"beta": 1.0} | hyper)[0]
    np.testing.assert_allclose(values("dpo", label_smoothing=0.0), [1e4, 0.0, LN2], rtol=1e-6)
    np.testing.assert_allclose(values("discopop", tau=0.05), [1e4, 0.0, LN2 / 2 + 0.5], rtol=1e-6)
    exo = values("exo_pair", label_smoothing=0.1)
    np.testing.assert_allclose(exo, [-np.log(0.1), -np.log(0.9), -LN2 - np.log(0.09) / 2], rtol=1e-6)
    sure = logps([-1e-4] * 3, [-1e4] * 3)
    np.testing.assert_allclose(run("orpo", sure, zero, ONE_TOKEN, {"beta": 1.0})[0], 1e-4, rtol=1e-6)


def test_discopop_first_pulls_an_untrained_policy_the_wrong_way():
    policy = SETS[0][0]
    slope = lambda tau: jax.grad(
        lambda chosen: jnp.sum(
            run("discopop", policy._replace(chosen=chosen), policy, TWO_TOKENS, {"beta": 1.0, "tau": tau})[0]
        )
    )(policy.chosen)
    assert (slope(0.05) > 0).all()
    assert (slope(0.5) < 0).all()
