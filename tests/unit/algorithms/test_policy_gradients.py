"""GRPO, its kin, RAFT and online DPO as whole steps, on completions that are drawn already."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import policy_gradients
from ftjax.adapters import attach
from ftjax.algorithms import on_policy, sft
from ftjax.algorithms.algorithm import frozen
from ftjax.data import batch, candidates, encode
from ftjax.train import epochs
from tests import preference_cases
from tests import rl_cases as cases

LIMIT = jnp.float32(jnp.inf)
METHODS = policy_gradients.METHODS
FIRST_IS_BETTER = jnp.tile(jnp.array([[1.0, 0.0]]), (cases.PROMPTS, 1))


@pytest.fixture(scope="module")
def logps_of(tiny_config, tiny_params):
    """Returns a function: adapters -> log-probabilities of the completions that were drawn, [P, G]."""
    rows, config = cases.drawn().rows, tiny_config()

    @jax.jit
    def ask(trainable):
        found, _ = on_policy.asked(attach.attach(tiny_params, trainable), rows, config, temperature=0.7)
        return jnp.sum(found.logps, axis=-1)

    return ask


@pytest.fixture(scope="module")
def stepped(rl_case):
    """Returns a function: settings that change -> the case and how far a step moved each leaf; the first is better."""
    done = cases.drawn(scores=FIRST_IS_BETTER)

    @functools.cache
    def run(**changes):
        case = rl_case(cases.make_grpo, done=done, **changes)
        now, told = cases.trained(case)
        return types.SimpleNamespace(case=case, now=now, told=told[0], change=cases.change(case, now))

    return run


@pytest.mark.parametrize("method", METHODS)
def test_a_step_makes_the_better_completions_likelier_than_the_worse_ones(stepped, logps_of, method):
    made = stepped(**METHODS[method])
    before, after = logps_of(made.case.state.trainable), logps_of(made.now.trainable)
    assert float(jnp.sum(after[:, 0] - before[:, 0])) > 1e-3
    assert float(jnp.sum((after - before)[:, 0] - (after - before)[:, 1])) > 1e-3
    assert made.told["reward"] == 0.5
    assert made.told["frac_reward_zero_std"] == 0.0


def test_a_step_of_grpo_without_its_std_is_half_a_step_of_rloo_with_two_completions(stepped):
    """(1 - 1/k) of it with k."""
    same = {"normaliser": "per_length"}
    centred, rloo = stepped(advantage="centred", **same), stepped(advantage="rloo", **same)
    cases.assert_same(jax.tree.map(lambda x: 2 * x, centred.change), rloo.change, rtol=1e-4, atol=1e-7)
    assert max(np.abs(x).max() for x in jax.tree.leaves(rloo.change)) > 1e-3


def test_one_update_of_the_clipped_loss_is_one_of_reinforce(stepped):
    """At a ratio of 1."""
    clipped = stepped(advantage="rloo", normaliser="per_length")
    plain = stepped(advantage="rloo", normaliser="per_length", loss="reinforce")
    cases.assert_same(clipped.change, plain.change, rtol=1e-4, atol=1e-7)
    assert clipped.told["policy/approxkl_avg"] == 0.0


def test_groups_of_equal_scores_do_not_count_in_dapo_and_no_more_than_asked_for(rl_case):
    """Four prompts of eight have signal, of which two are taken; what the others hold is no matter."""
    scores = FIRST_IS_BETTER.at[::2].set(0.3)
    case = rl_case(cases.make_grpo, done=cases.drawn(scores=scores), **METHODS["dapo"], groups=2)
    learned = cases.experience(case)
    np.testing.assert_array_equal(learned.rows[0].counted[:, 0], [0, 1, 0, 1, 0, 0, 0, 0])
    assert float(learned.told["groups"]) == 2
    assert float(learned.told["frac_reward_zero_std"]) == 0.5
    now, _ = case.step(case.state, case.base, learned, LIMIT)
    counted = learned.rows[0].counted[..., None]
    junk = learned.rows[0]._replace(advantages=jnp.where(counted, learned.rows[0].advantages, 5.0))
    other, _ = case.step(case.state, case.base, learned._replace(rows=(junk, learned.rows[1])), LIMIT)
    cases.assert_same(other.trainable, now.trainable, rtol=0)


def test_signal_is_that_of_the_scores_also_where_the_kl_is_in_the_reward(rl_case):
    done = cases.drawn(scores=jnp.full((cases.PROMPTS, cases.SAMPLES), 0.3))
    case = rl_case(cases.make_grpo, done=done, carrying=cases.STILL, kl_in="reward", signal=True)
    learned = cases.experience(case)
    assert float(jnp.abs(learned.rows[0].advantages).max()) > 0
    assert not np.asarray(learned.rows[0].counted).any()


def test_completions_cut_at_the_length_do_not_count_if_so_wished(rl_case):
    ended = jnp.ones((cases.PROMPTS, cases.SAMPLES)).at[4, 1].set(0.0)
    valid = jnp.ones_like(ended).at[6, 0].set(0.0)
    done = cases.drawn(ended=ended, valid=valid)
    counted = cases.experience(rl_case(cases.make_grpo, done=done, only_ended=True)).rows[0].counted
    np.testing.assert_array_equal(counted, ended * valid)


@pytest.mark.parametrize("place", ["loss", "reward"])
def test_the_kl_is_a_penalty_of_the_loss_by_k3_or_a_part_of_the_reward_by_k1(rl_case, place, logps_of):
    carrying = cases.STILL._replace(coefficient=0.5)
    case = rl_case(cases.make_grpo, carrying=carrying, kl_in=place, advantage="centred", normaliser="per_sequence")
    learned = cases.experience(case).rows[0]
    mine, theirs = logps_of(case.state.trainable), logps_of(jax.tree.map(jnp.zeros_like, case.state.trainable))
    scores = case.run.done.scores - (0.5 * (mine - theirs) if place == "reward" else 0.0)
    wanted = scores - jnp.mean(scores, axis=1, keepdims=True)
    np.testing.assert_allclose(
        jnp.max(learned.advantages * jnp.sign(wanted)[..., None], axis=-1), jnp.abs(wanted), atol=1e-4
    )
    assert (learned.reference is None) == (place == "reward")
    _, told = cases.trained(case)
    assert (told[0].get("kl", 0.0) > 0) == (place == "loss")
    assert np.isfinite(told[0]["loss"])


def test_several_updates_go_by_the_policy_of_the_rollout(rl_case):
    plan = epochs.Plan(epochs=2, minibatches=2, most_kl=cases.INF)
    case = rl_case(cases.make_grpo, plan=plan, updates=4, advantage="centred")
    told = cases.trained(case)[1][0]
    assert told["policy/approxkl_first"] <= 1e-10
    assert told["policy/approxkl_avg"] > 1e-6
    assert told["sampling/sampling_logp_difference/max"] >= told["sampling/sampling_logp_difference/mean"] > 0


def test_the_correction_of_a_lag_is_capped_in_every_method(rl_case):
    """A sampler that lags: log-probabilities of the policy are looked up, and its ratio to the sampler weighs."""
    case = rl_case(cases.make_grpo, carrying=cases.FREE._replace(sync_every=3), importance_cap=2.0, advantage="centred")
    learned = cases.experience(case).rows[0]
    done = case.run.done
    ratio = jnp.minimum(jnp.exp(learned.logps - done.sampler_logps), 2.0) * done.rows.mask
    apart = done.scores - jnp.mean(done.scores, axis=1, keepdims=True)
    np.testing.assert_allclose(learned.advantages, apart[..., None] * ratio, rtol=1e-4, atol=1e-6)


def texts_of(done, chosen):
    """Returns prompts and the chosen completion of each, as lists of tokens."""
    asked, valid, completions, mask = cases.texts()
    prompts = [asked[p][valid[p] > 0] for p in range(cases.PROMPTS)]
    del done
    return prompts, [completions[p, g][mask[p, g] > 0] for p, g in enumerate(chosen)]


def test_rejection_sampling_learns_the_best_completion_as_sft_does(rl_case, rl_init, tiny_config):
    """At a temperature of 1, whatever the sampler's was."""
    case = rl_case(cases.make_raft)
    learned = cases.experience(case).rows
    best = np.asarray(case.run.done.scores).argmax(axis=1)
    np.testing.assert_array_equal(np.asarray(learned.best).argmax(axis=1), best)
    made = []
    for prompt, answer in zip(*texts_of(case.run.done, best), strict=True):
        mask = np.concatenate([np.zeros(len(prompt), np.uint8), np.ones(len(answer), np.uint8)])
        made.append(encode.Example(np.concatenate([prompt, answer]), mask, "test:1"))
    rows = jax.tree.map(jnp.asarray, batch.pad_rows(made, length=16))
    theirs = sft.make(rl_init, tiny_config())
    one, two = (
        gradient_of(x, base, b)(case.state.trainable)
        for x, base, b in (
            (case.algorithm, frozen(case.base, case.state.extra), learned),
            (theirs, case.base, rows),
        )
    )
    cases.assert_same(one, two, rtol=2e-4, atol=1e-6)
    tied = case.run.done._replace(scores=jnp.ones_like(case.run.done.scores))
    case.run.done = tied
    assert not np.asarray(cases.experience(case).rows.best).any(), "of equal scores none is the best"


def gradient_of(made, base, rows):
    """Returns the gradient of an algorithm's mean loss by what trains."""

    def mean(trainable):
        values, weights, _ = made.loss(trainable, base, rows, None)
        return jnp.sum(values * weights) / jnp.sum(weights)

    return jax.jit(jax.grad(mean))


def test_online_dpo_learns_its_best_and_worst_completion_as_dpo_does(rl_case, rl_init, tiny_config):
    case = rl_case(cases.make_online_dpo, temperature=1.0)
    scores = np.asarray(case.run.done.scores)
    order = np.argsort(-scores, axis=1)
    prompts, chosen = texts_of(case.run.done, order[:, 0])
    rejected = texts_of(case.run.done, order[:, 1])[1]
    rows = [
        candidates.Candidates(
            prompt=prompt, completions=pair, masks=tuple(np.ones(len(one), np.uint8) for one in pair), pairs=((0, 1),),
            margins=(0.0,), labels=(1.0, 0.0), where="test:1",
        )
        for prompt, *pair in zip(prompts, chosen, rejected, strict=True)
        for pair in [tuple(pair)]
    ]  # fmt: skip
    theirs = preference_cases.make_dpo(rl_init, tiny_config(), beta=0.1)
    pairs = jax.tree.map(jnp.asarray, preference_cases.batch_of(rows, each=1))
    begun = theirs.extra.init(case.state.trainable, case.base) if theirs.extra else None
    one = gradient_of(case.algorithm, frozen(case.base, case.state.extra), cases.experience(case).rows)
    two = gradient_of(theirs, frozen(case.base, begun), pairs)
    cases.assert_same(one(case.state.trainable), two(case.state.trainable), rtol=2e-4, atol=1e-6)
    case.run.done = case.run.done._replace(scores=jnp.ones_like(case.run.done.scores))
    assert not np.asarray(cases.experience(case).rows.pair.present).any(), "equal scores are no preference"
