"""The space whose responses can all be written down, against sums by hand and what theory says of optima."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.losses import preference
from tests import bases

enumerable, policies = bases.script("repro/enumerable.py"), bases.script("repro/policies.py")


@pytest.fixture(scope="module")
def space():
    return enumerable.space(3, 3)


@pytest.fixture(scope="module")
def world(space):
    """Log-probabilities of a reference, and true rewards."""
    rng = np.random.default_rng(0)
    reference = enumerable.response_logps(space, rng.standard_normal((13, 3)))
    return reference, enumerable.gold_rewards(space, reference, rng, free=2, slope=1.0)


def test_every_response_is_there_once_and_every_prefix_before_what_follows_it(space):
    assert [tuple(row) for row in space.responses] == list(itertools.product(range(3), repeat=3))
    for response, prefixes in zip(space.responses, space.prefixes, strict=True):
        for t, prefix in enumerate(prefixes):
            shown = space.features[prefix].reshape(3, 3)
            np.testing.assert_array_equal(shown[:t], np.eye(3)[response[:t]])
            assert not shown[t:].any()
    assert len({row.tobytes() for row in space.features}) == len(space.features) == 1 + 3 + 9


def test_probabilities_and_kl_are_those_of_brute_force(space):
    """The KL by the chain rule: of the next token after each prefix, weighed by the policy's chance of the prefix."""
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((2, 13, 3)) * 3
    softmax = lambda row: np.exp(row) / np.exp(row).sum()
    number = {(): 0, **{(a,): 1 + a for a in range(3)}, **{(a, b): 4 + 3 * a + b for a in range(3) for b in range(3)}}
    chance = lambda which, y: np.prod([softmax(logits[which, number[y[:t]]])[y[t]] for t in range(len(y))])
    pi, ref = (enumerable.response_logps(space, one) for one in logits)
    np.testing.assert_allclose(np.exp(pi), [chance(0, tuple(y)) for y in space.responses], rtol=1e-12)
    np.testing.assert_allclose(np.exp(pi).sum(), 1.0, rtol=1e-12)
    by_chain = 0.0
    for prefix, at in number.items():
        p, q = (softmax(logits[which, at]) for which in (0, 1))
        by_chain += chance(0, prefix) * np.sum(p * np.log(p / q))
    np.testing.assert_allclose(enumerable.kl(pi, ref), by_chain, rtol=1e-12)


def test_a_policy_that_all_but_drops_a_response_has_a_finite_kl(space, world):
    logits = np.zeros((13, 3), np.float32)
    logits[0] = [200.0, 0.0, -200.0]
    assert np.isfinite(enumerable.kl(enumerable.response_logps(space, logits), world[0]))


def test_the_true_reward_has_unit_size_and_takes_off_for_repetition(space, world):
    reference, rewards = world
    mean = enumerable.mean(reference, rewards)
    np.testing.assert_allclose([mean, enumerable.mean(reference, rewards**2)], [0.0, 1.0], atol=1e-12)
    make = lambda slope: enumerable.gold_rewards(space, reference, np.random.default_rng(2), free=2, slope=slope)
    with_more, without = make(50.0), make(0.0)
    thrice = {0, 13, 26}  # 000, 111, 222
    assert set(np.argsort(with_more)[:3].tolist()) == thrice
    assert set(np.argsort(without)[:3].tolist()) != thrice


def test_no_policy_lies_above_the_frontier_and_the_tilt_lies_on_it(world):
    reference, rewards = world
    rng = np.random.default_rng(3)
    for scale in np.geomspace(0.1, 10, 40):
        logps = enumerable.log_softmax(reference + scale * rewards + scale * rng.standard_normal(27) / 3)
        nats = enumerable.kl(logps, reference)
        assert enumerable.mean(logps, rewards) <= enumerable.frontier(reference, rewards, nats) + 1e-9
    for beta in (0.05, 0.3, 2.0):
        tilt = enumerable.tilt(reference, rewards, beta)
        top = enumerable.frontier(reference, rewards, enumerable.kl(tilt, reference))
        np.testing.assert_allclose(top, enumerable.mean(tilt, rewards), rtol=1e-9)


def test_past_the_largest_kl_the_frontier_is_the_best_response(world):
    reference, rewards = world
    np.testing.assert_allclose(enumerable.frontier(reference, rewards, 50.0), rewards.max(), rtol=1e-9)
    assert abs(enumerable.frontier(reference, rewards, 0.0)) < 1e-3


def test_pairs_differ_and_the_better_one_is_chosen_as_often_as_its_lead_says(world):
    reference, rewards = world
    pairs = enumerable.draw_pairs(reference, rewards, np.random.default_rng(4), count=20_000, sharpness=2.0)
    assert len(pairs.chosen) == 20_000
    assert (pairs.chosen != pairs.rejected).all()
    right = np.mean(rewards[pairs.chosen] > rewards[pairs.rejected])
    bayes = enumerable.bayes_accuracy(pairs, rewards, 2.0)
    assert abs(right - bayes) < 4 * np.sqrt(bayes * (1 - bayes) / 20_000)
    sharp = enumerable.tilt(reference, rewards, 0.01)
    with pytest.raises(ValueError, match="too sharp"):
        enumerable.draw_pairs(sharp, rewards, np.random.default_rng(5), count=100, sharpness=2.0)


def test_the_loss_of_dpo_on_all_pairs_is_flat_at_the_exact_optimum_and_nowhere_near_it(world):
    """With labels sigmoid(s dr) the optimum is ref exp(s r / beta): the implicit reward is s r but for a constant."""
    reference, rewards = (jnp.asarray(x, jnp.float32) for x in world)
    beta, sharpness = 0.5, 2.0
    a, b = (jnp.asarray(x) for x in np.nonzero(~np.eye(27, dtype=bool)))
    weights = jnp.exp(reference[a] + reference[b]) * jax.nn.sigmoid(sharpness * (rewards[a] - rewards[b]))

    def loss(logps):
        of = lambda x: preference.PairLogps(x[a], x[b])
        return jnp.sum(weights * preference.dpo(of(logps), of(reference), beta=beta, label_smoothing=0.0)[0])

    best = jnp.asarray(enumerable.tilt(*world, beta / sharpness), jnp.float32)
    assert float(jnp.abs(jax.grad(loss)(best)).max()) < 1e-6
    wrong = jnp.asarray(enumerable.tilt(*world, beta), jnp.float32)
    assert float(jnp.abs(jax.grad(loss)(wrong)).max()) > 1e-3


@pytest.fixture(scope="module")
def start(space):
    return policies.init(jax.random.key(0), (9, 16, 3), head=1.0), policies.places(space)


def test_dpo_on_many_pairs_orders_the_responses_as_the_true_reward(space, start):
    params, at = start
    reference = enumerable.response_logps(space, np.asarray(policies.logits(params, at)))
    rewards = enumerable.gold_rewards(space, reference, np.random.default_rng(0), free=3, slope=0.0)
    pairs = enumerable.draw_pairs(reference, rewards, np.random.default_rng(1), count=20_000, sharpness=2.0)
    batches = policies.batches_of(pairs, np.random.default_rng(2), steps=600, size=500)
    trained, losses = policies.dpo(params, batches, at, beta=1.0, label_smoothing=0.0, rate=1e-2, clip_norm=1.0)
    np.testing.assert_allclose(losses[0], np.log(2), rtol=1e-6)
    logps = enumerable.response_logps(space, np.asarray(policies.logits(trained, at)))
    implicit = enumerable.implicit_rewards(logps, reference, 1.0)
    assert np.corrcoef(implicit, rewards)[0, 1] > 0.99
    assert enumerable.kl(logps, enumerable.tilt(reference, rewards, 0.5)) < 0.02


def test_ppo_reaches_the_frontier_and_starts_every_update_from_the_policy_that_sampled(space, start):
    params, at = start
    reference = enumerable.response_logps(space, np.asarray(policies.logits(params, at)))
    rewards = enumerable.gold_rewards(space, reference, np.random.default_rng(0), free=3, slope=0.0)
    settings = policies.Settings(64, 2, 2, 0.2, 0.2, 0.1, 1.0, 0.95, 1e-2, 1.0)
    orders = policies.orders(np.random.default_rng(0), 60, settings)
    np.testing.assert_array_equal(np.sort(orders.reshape(60, 2, 64)), np.broadcast_to(np.arange(64), (60, 2, 64)))
    value = policies.init(jax.random.key(1), (9, 16, 1), head=0.0)
    trained, trace = policies.ppo(
        params,
        value,
        jnp.asarray(rewards, jnp.float32)[None],
        jnp.array([0.3]),
        jax.random.split(jax.random.key(2), (1, 60)),
        jnp.asarray(orders),
        at,
        settings=settings,
        adapt=policies.fixed,
    )
    logps = enumerable.response_logps(space, np.asarray(policies.logits(jax.tree.map(lambda x: x[0], trained), at)))
    nats, gold = enumerable.kl(logps, reference), enumerable.mean(logps, rewards)
    top = enumerable.frontier(reference, rewards, nats)
    assert 0.9 * top < gold <= top + 1e-6
    assert float(trace["ratio_error"].max()) < 1e-5
    assert (np.asarray(trace["kl_coef"]) == np.float32(0.3)).all()
    np.testing.assert_allclose(trace["objective/kl"][0, -10:].mean(), nats, rtol=0.2)  # sampled and exact


def test_sampled_tokens_are_those_of_the_response_and_as_frequent_as_it_is_likely(space):
    logits = jnp.asarray(np.random.default_rng(6).standard_normal((13, 3)), jnp.float32)
    prefixes, tokens, numbers = (np.asarray(x) for x in policies.sample(jax.random.key(0), logits, 20_000, 3))
    np.testing.assert_array_equal(tokens, space.responses[numbers])
    np.testing.assert_array_equal(prefixes, space.prefixes[numbers])
    expected = 20_000 * np.exp(enumerable.response_logps(space, np.asarray(logits)))
    chi_square = np.sum((np.bincount(numbers, minlength=27) - expected) ** 2 / expected)
    assert chi_square < 54.1  # the .999 quantile of 26 degrees of freedom


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_best_of_n_is_that_of_all_draws(world, n):
    """By enumeration of every n draws; no two responses have one reward."""
    reference, rewards = world
    chance, expected = np.exp(reference), np.zeros(27)
    for drawn in itertools.product(range(27), repeat=n):
        expected[max(drawn, key=lambda y: rewards[y])] += np.prod(chance[list(drawn)])
    np.testing.assert_allclose(np.exp(enumerable.best_of(reference, rewards, n)), expected, atol=1e-14)


def test_the_best_of_very_many_is_the_best_response(world):
    reference, rewards = world
    found = enumerable.best_of(reference, rewards, 10**6)
    np.testing.assert_allclose(np.exp(found).sum(), 1.0, rtol=1e-12)
    assert np.exp(found)[rewards.argmax()] > 1 - 1e-9
