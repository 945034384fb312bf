"""What completions are worth: rewards, returns and advantages as arrays, in both published conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.algorithms import ppo
from tests import rl_cases as cases

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32)
SCORES = np.array([1.0, -0.5], np.float32)
TRL = {"score_at": "next", "ddof": 1}
OPENAI = {"score_at": "last", "ddof": 0}
targets = jax.jit(ppo.targets, static_argnames="settings")


def case(rows=2, length=4, seed=0):
    """The draw of interop.md, section 3: log-probabilities of policy and reference, and values."""
    rng = np.random.default_rng(seed)
    return -rng.random((rows, length)), -rng.random((rows, length)), rng.standard_normal((rows, length))


def found(arrays=None, mask=MASK, scores=SCORES, valid=None, coefficient=0.05, **changes):
    logps, reference, values = (jnp.asarray(x, jnp.float32) for x in (case() if arrays is None else arrays))
    return targets(
        logps=logps, reference=reference, values=values, mask=jnp.asarray(mask), scores=jnp.asarray(scores),
        valid=jnp.ones(len(mask)) if valid is None else jnp.asarray(valid), coefficient=jnp.float32(coefficient),
        settings=cases.settings(ppo.Settings, cases.defaults.ppo().loss, **changes),
    )  # fmt: skip


def test_targets_are_the_goldens_of_trl():
    """(8), (9), (10), (12), (13): the score is at the place after the last token where there is one, else at it."""
    made = found(**TRL)
    for name, wanted in {
        "rewards": [[0.004667, -0.033264, -0.038744, 1.000689], [-0.002207, 0.043959, -0.5, 0]],
        "raw": [[1.391105, 1.219452, 0.552406, -0.041824], [-0.246435, -1.830765, 0.165195, 0]],
        "returns": [[0.846846, 0.903152, 0.964037, 1.000689], [-0.37497, -0.464301, -0.5, 0]],
        "advantages": [[1.031607, 0.886116, 0.320739, -0.18292], [-0.356345, -1.699197, 0, 0]],
    }.items():
        np.testing.assert_allclose(getattr(made, name), wanted, atol=2e-6, err_msg=name)
    assert np.asarray(made.value_weights).sum() == MASK.sum() + 1


@pytest.mark.parametrize("whiten_rewards", [False, True])
def test_targets_in_openais_form_are_those_of_float64(whiten_rewards):
    """The score is at the last token, nothing is learned of the place after it, variances are the population's."""
    logps, reference, values = case(seed=1)
    made = found((logps, reference, values), whiten_rewards=whiten_rewards, **OPENAI)
    rewards = -0.05 * (logps - reference) * MASK
    for row, last in enumerate((3, 1)):
        rewards[row, last] += SCORES[row]
    counted = MASK > 0
    if whiten_rewards:
        all_of = rewards[counted]
        rewards = (rewards - all_of.mean()) / np.sqrt(all_of.var() + 1e-8) + all_of.mean()
    raw = np.zeros_like(rewards)
    for row, last in enumerate((3, 1)):
        following, value = 0.0, 0.0
        for place in range(last, -1, -1):
            following = rewards[row, place] + value - values[row, place] + 0.95 * following
            raw[row, place], value = following, values[row, place]
    np.testing.assert_allclose(made.rewards, rewards * MASK, atol=2e-6)
    np.testing.assert_allclose(made.raw, raw, atol=5e-6)
    np.testing.assert_allclose(made.returns, (raw + values) * MASK, atol=5e-6)
    white = (raw - raw[counted].mean()) / np.sqrt(raw[counted].var() + 1e-8)
    np.testing.assert_allclose(made.advantages, white * MASK, atol=2e-5)
    np.testing.assert_array_equal(made.value_weights, MASK)


@pytest.mark.parametrize("convention", [TRL, OPENAI])
def test_tokens_behind_the_end_are_no_matter(convention):
    """(10): in TRL both log-probabilities are 1.0 there. In its form the value of the place after the end counts."""
    logps, reference, values = case()
    junk = np.where(MASK > 0, 0.0, np.array([3.0, -7.0, 40.0, 5.0]))
    states = MASK if convention is OPENAI else np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    other = (logps + junk, reference - junk, np.where(states > 0, values, 9.0))
    cases.assert_same(found(other, **convention), found(**convention), atol=1e-6)


@pytest.mark.parametrize("convention", [TRL, OPENAI])
def test_a_completion_without_a_score_is_as_if_it_were_not_there(convention):
    arrays = case(rows=3, seed=2)
    mask = np.concatenate([MASK, np.ones((1, 4), np.float32)])
    scores = np.array([1.0, np.nan, -0.5], np.float32)
    with_it = found(
        arrays, mask, scores, valid=np.array([1.0, 0.0, 1.0], np.float32), whiten_rewards=True, **convention
    )
    kept = [0, 2]
    without = found([x[kept] for x in arrays], mask[kept], scores[kept], whiten_rewards=True, **convention)
    cases.assert_same(jax.tree.map(lambda x: x[np.array(kept)], with_it), without, atol=1e-6)
    assert not any(np.asarray(x)[1].any() for x in (with_it.weights, with_it.advantages, with_it.returns))


def test_the_penalty_by_k3_is_never_negative_and_is_trls():
    """(9): exp(x) - 1 - x with x = reference - policy."""
    logps, reference, _ = case()
    made = found(kl_estimator="k3", **TRL)
    x = reference - logps
    np.testing.assert_allclose(made.penalties, (np.exp(x) - 1 - x) * MASK, atol=1e-6)
    assert np.asarray(made.penalties).min() >= 0


def test_a_coefficient_of_zero_leaves_the_score_alone():
    made = found(coefficient=0.0, **OPENAI)
    wanted = np.zeros((2, 4))
    wanted[0, 3], wanted[1, 1] = SCORES
    np.testing.assert_array_equal(made.rewards, wanted.astype(np.float32))
