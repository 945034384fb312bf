import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.errors import UserError
from ftjax.rl import advantages, groups

# The case of interop.md, 2g.
GOLDEN = jnp.array([[1, 0, 0, 1], [0.2, 0.8, 0.5, 0.5], [1, 1, 1, 1]], jnp.float32)
EVERY = jnp.ones((3, 4))
METHODS = {  # each one program, which compiles faster than its operations do one by one
    "grpo": jax.jit(lambda scores, valid: groups.grpo(scores, valid, eps=1e-4)),
    "centred": jax.jit(groups.centred),
    "rloo": jax.jit(groups.rloo),
    "reinforce_plus_plus": jax.jit(
        lambda scores, valid: groups.reinforce_plus_plus(scores, valid, jnp.ones_like(scores), ddof=1, eps=1e-8)
    ),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def draws(seed=0, shape=(3, 4)):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_advantages_are_the_goldens_of_trl():
    wanted = [[0.865875, -0.865875, -0.865875, 0.865875], [-1.224245, 1.224245, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(groups.grpo(GOLDEN, EVERY, eps=1e-4), wanted, atol=1e-6)
    wanted = [[2 / 3, -2 / 3, -2 / 3, 2 / 3], [-0.4, 0.4, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(groups.rloo(GOLDEN, EVERY), wanted, atol=1e-6)


def test_rloo_takes_the_mean_of_the_others_off():
    scores = draws()
    others = (jnp.sum(scores, axis=1, keepdims=True) - scores) / 3
    np.testing.assert_allclose(groups.rloo(scores, EVERY), scores - others, atol=1e-6)


@pytest.mark.parametrize("k", [2, 4, 16])
def test_grpo_without_the_std_is_rloo_times_one_less_one_over_k(k):
    scores = draws(k, (5, k))
    every = jnp.ones_like(scores)
    np.testing.assert_allclose(
        METHODS["centred"](scores, every), (1 - 1 / k) * METHODS["rloo"](scores, every), atol=1e-6
    )


def test_reinforce_plus_plus_whitens_the_array_of_tokens():
    scores, lengths = draws(1), np.array([[1, 3, 2, 4], [2, 2, 1, 1], [4, 1, 3, 2]])
    valid = jnp.asarray([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]], jnp.float32)
    found = groups.reinforce_plus_plus(scores, valid, jnp.asarray(lengths, jnp.float32), ddof=1, eps=1e-8)
    mask = (np.arange(4) < lengths.reshape(-1, 1)) * np.asarray(valid).reshape(-1, 1)
    tokens = mask * np.asarray(groups.centred(scores, valid)).reshape(-1, 1)
    wanted = advantages.whiten(jnp.asarray(tokens, jnp.float32), jnp.asarray(mask, jnp.float32), ddof=1, eps=1e-8)
    np.testing.assert_allclose(found.reshape(-1, 1) * mask, wanted, atol=1e-6)
    alive = mask > 0
    each = np.broadcast_to(np.asarray(found).reshape(-1, 1), mask.shape)[alive]
    np.testing.assert_allclose([each.mean(), each.std(ddof=1)], [0, 1], atol=1e-6)


@each_method
def test_a_failed_reward_has_no_advantage_and_the_rest_of_its_group_is_one_without_it(method):
    scores = draws(2)
    valid = EVERY.at[:, 1].set(0)
    found = method(scores.at[:, 1].set(jnp.nan), valid)
    assert not found[:, 1].any()
    rest = jnp.array([0, 2, 3])
    np.testing.assert_allclose(found[:, rest], method(scores[:, rest], jnp.ones((3, 3))), atol=1e-6)


@each_method
def test_a_group_of_one_valid_score_or_of_none_gives_no_advantage_and_changes_no_other(method):
    scores = draws(3)
    valid = EVERY.at[1, 1:].set(0).at[2].set(0)
    found = method(scores, valid)
    assert not found[1:].any()
    assert jnp.isfinite(found).all()
    if method is not METHODS["reinforce_plus_plus"]:  # which whitens over the batch
        np.testing.assert_array_equal(found[0], method(scores[:1], EVERY[:1])[0])


@each_method
@pytest.mark.parametrize("score", [0.1, 1e4 / 3, -7.7])
def test_a_group_of_equal_scores_has_advantages_of_exactly_zero(method, score):
    """A mean of equal float32 may be off by a digit, which GRPO's division would make into an advantage."""
    assert not method(jnp.full((1, 7), score), jnp.ones((1, 7))).any()


@pytest.mark.parametrize("name", ["grpo", "centred", "rloo", "reinforce_plus_plus"])
def test_one_completion_a_prompt_is_refused_by_methods_that_compare(name):
    with pytest.raises(UserError, match="needs 2 or more"):
        METHODS[name](jnp.ones((3, 1)), jnp.ones((3, 1)))


def test_the_weight_that_grpo_gives_a_prompt_falls_less_with_its_pass_rate_than_that_of_rloo():
    """E10(a): E sqrt(m (1 - m)) against p (1 - p); pass rates of .05 and .5, 8 completions."""
    rng = np.random.default_rng(0)

    def weight(method, p):
        passed = rng.random((20_000, 8)) < p
        scores = jnp.asarray(passed, jnp.float32)
        # The gradient is along the score function of the pass, (x - p): its projection is the weight.
        return float(jnp.mean(method(scores, jnp.ones_like(scores)) * (scores - p)))

    ratio = lambda method: weight(method, 0.05) / weight(method, 0.5)
    np.testing.assert_allclose(ratio(METHODS["grpo"]), 0.253, atol=0.01)
    np.testing.assert_allclose(ratio(METHODS["rloo"]), 0.190, atol=0.01)


@pytest.mark.parametrize(("k", "share"), [(8, 0.663), (16, 0.440)])
def test_the_share_of_groups_without_signal_is_the_binomial_one(k, share):
    passed = np.random.default_rng(k).random((20_000, k)) < 0.05
    scores = jnp.asarray(passed, jnp.float32)
    silent = groups.metrics(scores, jnp.ones_like(scores))["frac_reward_zero_std"]
    np.testing.assert_allclose(silent, share, atol=0.01)
    without = (~np.asarray(METHODS["grpo"](scores, jnp.ones_like(scores))).any(axis=1)).mean()
    np.testing.assert_allclose(without, silent, atol=1e-6)


def test_groups_with_signal_are_those_whose_valid_scores_differ():
    scores = jnp.array([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [1, 1, jnp.nan], [jnp.nan, 0, 1], [0, 1, 2]])
    valid = jnp.array([[1.0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
    assert groups.signal(scores, valid).tolist() == [True, False, False, False, True, False]
    assert not groups.signal(scores, jnp.zeros_like(scores)).any()


def test_best_and_worst_are_among_the_valid_ones():
    scores = jnp.array([[1.0, 3, 2], [9, 1, 2], [5, 5, 5], [1, 2, 3]])
    valid = jnp.array([[1.0, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0]])
    place, present = groups.best(scores, valid)
    assert place[:3].tolist() == [1, 2, 0]
    assert present.tolist() == [True, True, True, False]
    chosen, rejected, present = groups.best_and_worst(scores, valid)
    assert (chosen[:2].tolist(), rejected[:2].tolist()) == ([1, 2], [0, 1])
    assert present.tolist() == [True, True, False, False]


def test_the_kl_of_the_best_of_n_is_the_exact_one_where_no_completion_is_likely_and_above_it_elsewhere():
    """Of m equally likely completions with scores that all differ the best has probability (i/m)^n - ((i-1)/m)^n."""
    for n in (1, 4, 64):
        for m, slack in ((100_000, 1e-3), (10, None)):
            chance = np.diff((np.arange(m + 1) / m) ** n)
            alive = chance > 0
            exact = np.sum(chance[alive] * np.log(m * chance[alive]))
            gap = groups.kl_of_best(n) - exact
            assert gap > -1e-9
            assert slack is None or gap < slack
    assert groups.kl_of_best(1) == 0


def test_metrics_are_those_of_all_valid_scores():
    scores = jnp.array([[1.0, 0, 1], [2, 2, jnp.nan]])
    found = groups.metrics(scores, jnp.array([[1.0, 1, 1], [1, 1, 0]]))
    values = np.array([1, 0, 1, 2, 2])
    np.testing.assert_allclose([found["reward"], found["reward_std"]], [values.mean(), values.std(ddof=1)], rtol=1e-6)
    assert float(found["frac_reward_zero_std"]) == 0.5
