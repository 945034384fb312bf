import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

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


def test_min_p_keeps_what_is_not_far_below_the_likeliest():
    assert kept(warp.min_p(LOGITS, jnp.float32(0.6)))[0] == [True, True, False, False]  # 0.2 < 0.6 * 0.4
    assert kept(warp.min_p(LOGITS, jnp.float32(0.4)))[1] == [False, True, True, True]
    assert kept(warp.min_p(LOGITS, jnp.float32(1.0)))[0] == [True, False, False, False]


def test_a_penalty_of_repetition_makes_seen_tokens_less_likely_whatever_their_sign():
    logits, seen = jnp.array([[2.0, -2.0, 2.0, -2.0]]), jnp.array([[True, True, False, False]])
    np.testing.assert_allclose(warp.repetition_penalty(logits, seen, jnp.float32(1.5))[0], [4 / 3, -3, 2, -2])


@pytest.mark.parametrize(
    "settings", [{}, {"k": 3}, {"top_p": 0.6}, {"min_p": 0.3}, {"penalty": 2.0, "k": 4, "min_p": 0.1}]
)
def test_draws_follow_the_warped_distribution_and_say_its_log_probabilities(settings):
    """Chi-square of 4,000 draws against probabilities that NumPy makes, at temperature 0.8."""
    rng = np.random.default_rng(0)
    row, seen, draws = rng.normal(0, 1, 6).astype(np.float32), np.arange(6) % 2 == 0, 4000
    warps = warp.Warps(jnp.float32(0.8), *(settings.get(name) for name in ("top_p", "min_p", "penalty")))
    warps = jax.tree.map(jnp.float32, warps)
    keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(jnp.arange(draws))
    tile = lambda x: jnp.tile(x, (draws, 1))
    found = warp.sample(tile(row), keys, jnp.zeros(draws, jnp.int32), tile(seen), warps, k=settings.get("k", 0))
    wanted = by_hand(row, seen, settings)
    counts = np.bincount(np.asarray(found[0]), minlength=6)
    assert not counts[wanted == 0].any()
    counts, expected = counts[wanted > 0], draws * wanted[wanted > 0]
    assert expected.min() > 5
    assert ((counts - expected) ** 2 / expected).sum() < scipy.stats.chi2.ppf(0.999, max(len(expected) - 1, 1))
    np.testing.assert_allclose(found[1], np.log(wanted[np.asarray(found[0])]), atol=1e-5)


def by_hand(row, seen, settings):
    """The probabilities of a row of logits, one warp after the other, in float64."""
    penalty = settings.get("penalty", 1.0)
    x = np.where(seen, np.where(row < 0, row * penalty, row / penalty), row).astype(np.float64) / 0.8
    softmax = lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    if "k" in settings:
        x[np.argsort(-x)[settings["k"] :]] = -np.inf
    if "top_p" in settings:
        order = np.argsort(-x)
        x[order[np.cumsum(softmax(x)[order]) - softmax(x)[order] >= settings["top_p"]]] = -np.inf
    if "min_p" in settings:
        x[softmax(x) < settings["min_p"] * softmax(x).max()] = -np.inf
    return softmax(x)


def test_a_large_vocabulary_is_drawn_from_to_its_last_token():
    """Blocks do not come out even at 1,003 tokens; shares from 1e-9 to 1, of which the least are never lost in sums."""
    logits = jnp.tile(jnp.where(jnp.arange(1003) == 1002, 0.0, -20.0), (2, 1)).at[1].set(warp.NEVER).at[1, 1002].set(5)
    draw = lambda u, v: warp.drawn(logits, jnp.array([[u, v]] * 2)).tolist()
    assert draw(0.9, 0.9) == [1002, 1002]
    assert draw(0.0, 0.0) == [0, 1002]
    assert draw(0.999999, 0.999999) == [1002, 1002]
    assert warp.first_largest(logits).tolist() == [1002, 1002]
    assert warp.first_largest(jnp.array([[1.0, 3.0, 3.0, 2.0]])).tolist() == [1]


def test_a_draw_depends_on_the_key_and_the_count_of_its_row_alone():
    keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(jnp.arange(64))
    warps = warp.Warps(jnp.float32(1), None, None, None)
    run = jax.jit(lambda keys, count: warp.sample(jnp.zeros((64, 50)), keys, count, None, warps, k=0)[0])
    draw = lambda at, count: run(keys[at], jnp.asarray(count))
    every = draw(np.arange(64), np.arange(64))
    np.testing.assert_array_equal(draw(np.arange(63, -1, -1), np.arange(63, -1, -1)), every[::-1])
    assert np.mean(np.asarray(draw(np.arange(64), np.arange(64) + 1)) == every) < 0.2
