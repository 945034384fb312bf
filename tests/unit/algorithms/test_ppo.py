"""PPO as a whole step, on completions that are drawn already. Numbers are those of the details in docs/ppo.md."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.adapters import attach
from ftjax.algorithms import on_policy, ppo, sft
from ftjax.algorithms.algorithm import Frozen, frozen
from ftjax.errors import UserError
from ftjax.losses import reduce
from ftjax.models import params
from ftjax.rl import kl, layout
from ftjax.train import epochs
from tests import rl_cases as cases

FOUR = epochs.Plan(epochs=2, minibatches=2, most_kl=cases.INF)
LIMIT = jnp.float32(jnp.inf)
TRL = {
    *("objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward"),
    *("policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg", "loss/policy_avg", "loss/value_avg"),
    *("val/clipfrac_avg", "val/ratio"),
}


@pytest.fixture(scope="module")
def plain(rl_case):
    """PPO with values of its own, one update a step: the case, the state after two steps, their metrics."""
    case = rl_case(cases.make_ppo)
    return case, *cases.trained(case, 2)


@pytest.fixture(scope="module")
def four(rl_case):
    """The same with two epochs of two minibatches, at a learning rate that moves the policy."""
    case = rl_case(cases.make_ppo, plan=FOUR)
    return case, *cases.trained(case, 1)


@pytest.fixture(scope="module")
def learned(plain):
    """What the first of these steps learns from."""
    return cases.experience(plain[0])


@pytest.fixture(scope="module")
def loss_of(plain):
    """The loss of that case as a program."""
    return jax.jit(plain[0].algorithm.loss)


def test_the_first_update_after_a_rollout_has_the_ratio_one_and_no_kl(four):
    """(26); at a temperature of .7 (5)."""
    told = four[2][0]
    assert told["policy/approxkl_first"] <= 1e-10
    np.testing.assert_allclose(told["val/ratio_first"], 1.0, atol=1e-6)
    assert told["policy/approxkl_avg"] > 1e-6, "later updates must see that the policy moved"


def test_metrics_have_the_names_of_trl(four):
    assert four[2][0].keys() >= TRL


def test_microbatches_change_no_update(rl_case, plain, learned):
    """Completions have unequal lengths, so means of means would differ; policy and value count different places."""
    case = plain[0]
    last, told = case.step(case.state, case.base, learned, LIMIT)
    for microbatches in (2, 4):
        other = rl_case(cases.make_ppo, microbatches=microbatches)
        now, found = other.step(other.state, other.base, learned, LIMIT)
        cases.assert_same(now.trainable, last.trainable, atol=1e-6)
        cases.assert_same(found, told, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_over_tokens_plus_that_over_values_times_its_coefficient(plain, learned, loss_of):
    case, _, told = plain
    terms, weights, _ = loss_of(case.state.trainable, frozen(case.base, case.state.extra), learned.rows, None)
    assert float(weights[0].sum()) < float(weights[1].sum()), "the place after a completion has a value as well"
    means = [float((t * w).sum() / w.sum()) for t, w in zip(terms, weights, strict=True)]
    np.testing.assert_allclose(told[0]["loss"], sum(means), rtol=1e-5)
    np.testing.assert_allclose(told[0]["loss/value_avg"] * 0.1, means[1], rtol=1e-5)


def test_what_is_learned_is_what_the_arrays_say(plain, learned, tiny_config):
    """Policy, reference and value are forward passes of one base; their targets are those of `ppo.targets`."""
    case, rows = plain[0], learned.rows.rows
    now = case.state.trainable
    config = tiny_config()

    @jax.jit
    def ask(now, base):
        asked = lambda weights: on_policy.asked(weights, rows, config, temperature=0.7)[0]
        valued = layout.hidden(attach.attach(base, now.value), rows, config)
        return asked(attach.attach(base, now.policy)), asked(base), layout.values(now.value, valued)[..., :-1]

    mine, theirs, values = ask(now, case.base)
    flat = lambda x: x.reshape(-1, cases.NEW)
    wanted = ppo.targets(
        logps=flat(mine.logps), reference=flat(theirs.logps), values=flat(values), mask=flat(rows.mask),
        scores=case.run.done.scores.reshape(-1), valid=case.run.done.valid.reshape(-1), coefficient=jnp.float32(0.05),
        settings=cases.settings(ppo.Settings, cases.defaults.ppo().loss, score_at="next", ddof=1),
    )  # fmt: skip
    for name in ("values", "advantages", "returns", "weights", "value_weights"):
        np.testing.assert_allclose(flat(getattr(learned.rows, name)), getattr(wanted, name), atol=2e-5, err_msg=name)
    assert float(jnp.abs(wanted.values).max()) > 0.05, "the value must say something, or equality means nothing"
    np.testing.assert_allclose(learned.told["objective/kl"], wanted.penalties.sum() / 16, rtol=1e-4)


def test_values_begin_at_zero_and_the_policy_at_its_reference(plain):
    """(20)"""
    case = plain[0]
    fresh = case.algorithm.init(jax.random.key(0), case.base)
    assert not np.asarray(fresh.value.score).any()
    first = cases.experience(case, case.state.replace(trainable=fresh))
    assert not np.asarray(first.rows.values).any()
    assert float(first.told["objective/kl"]) == 0.0


@pytest.mark.parametrize("shared", [False, True])
def test_the_value_moves_the_policys_trunk_only_where_they_share_it(rl_case, learned, shared):
    """(23)"""
    case = rl_case(cases.make_ppo, shared=shared)
    extra = frozen(case.base, case.state.extra)

    @jax.jit
    def gradients(trainable, rows):
        of_term = lambda n: jax.grad(lambda x: jnp.sum(case.algorithm.loss(x, extra, rows, None)[0][n]))(trainable)
        return of_term(0), of_term(1)

    rows = learned.rows if not shared else cases.experience(case).rows
    of_policy, of_value = gradients(case.state.trainable, rows)
    size = lambda tree: sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree))
    assert size(of_policy.policy) > 0
    assert size(of_value) > 0
    assert (size(ppo.policy_of(of_value)) > 0) == shared
    if not shared:
        assert size(of_policy.value) == 0
    else:
        assert case.state.trainable.value is None
        assert size(of_policy.policy.score) == 0
        assert ppo.value_of(case.state.trainable).score is case.state.trainable.policy.score


def test_a_completion_whose_reward_failed_changes_nothing(plain):
    """Its tokens and its score may be anything; the means are those of the others."""
    case = plain[0]
    done = case.run.done
    valid = done.valid.at[3, 0].set(0.0)
    other = done.rows.completions.at[3, 0].add(1) * done.rows.mask.astype(jnp.int32)
    start = done.rows.head + 1
    tokens = done.rows.tokens.at[3, start : start + cases.NEW].set(other[3, 0])
    found = []
    for rows, score in ((done.rows, 0.0), (done.rows._replace(tokens=tokens, completions=other), 1e6)):
        case.run.done = done._replace(rows=rows, valid=valid, scores=done.scores.at[3, 0].set(score))
        found.append(case.step(case.state, case.base, cases.experience(case), LIMIT))
    case.run.done = done
    (one, told), (two, same) = found
    cases.assert_same(one.trainable, two.trainable, atol=1e-7)
    cases.assert_same(told, same, rtol=1e-5, atol=1e-7)
    without = cases.trained(case)[0]
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one.trainable, without.trainable)
    assert max(jax.tree.leaves(apart)) > 1e-4, "the completion must matter where it is valid"


def test_a_loss_that_is_not_a_number_changes_nothing(plain, learned):
    case = plain[0]
    bad = learned._replace(rows=learned.rows._replace(advantages=learned.rows.advantages.at[0, 0, 0].set(jnp.nan)))
    now, told = case.step(case.state, case.base, bad, LIMIT)
    assert float(told["applied"]) == 0.0
    raw = lambda s: (s.trainable, s.opt_state, s.extra, s.step)
    cases.assert_same(raw(now), raw(case.state), rtol=0)


def test_a_ratio_out_of_reach_is_finite(plain, learned):
    """(25): a log-ratio counts up to 20."""
    case = plain[0]
    far = learned._replace(rows=learned.rows._replace(logps=learned.rows.logps - 300.0))
    now, told = case.step(case.state, case.base, far, LIMIT)
    assert float(told["applied"]) == 1.0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(now.trainable))
    np.testing.assert_allclose(told["policy/approxkl_avg"], 200.0, rtol=1e-5)


def test_a_policy_too_far_from_its_reference_is_a_line_that_says_what_to_do():
    told = {on_policy.KL: jnp.float32(7.25)}
    on_policy.refuse_far(told, 7.5)
    with pytest.raises(UserError, match=r"7\.25 nats a completion, above config\.stop\.kl 7.*earlier checkpoint"):
        on_policy.refuse_far(told, 7.0)
    with pytest.raises(UserError, match="nan nats"):
        on_policy.refuse_far({on_policy.KL: jnp.float32(jnp.nan)}, 7.0)


CONTROLLERS = {
    "paper": functools.partial(kl.adapt_by_paper, target=6.0, gain=0.1),
    "code": functools.partial(kl.adapt_by_code, target=6.0, horizon=10_000.0, episodes=512),
}


def test_the_coefficient_of_the_next_step_is_what_the_controller_makes_of_this_ones_kl(rl_case):
    """(11); the KL of the first step is that of a moved policy. Scores are normalised on the way (21)."""
    for name, controller in CONTROLLERS.items():
        carrying = cases.STILL._replace(controller=controller, coefficient=0.15, normalise=name == "code")
        case = rl_case(cases.make_ppo, carrying=carrying)
        last, told = cases.trained(case, 2)
        assert told[0]["objective/kl"] != 0
        np.testing.assert_allclose(told[0]["objective/kl_coef"], 0.15)
        wanted = 0.15 * (1 + (0.1 if name == "paper" else 0.0512) * np.clip(told[0]["objective/kl"] / 6 - 1, -0.2, 0.2))
        np.testing.assert_allclose(told[1]["objective/kl_coef"], wanted, rtol=1e-6)
        now = [jnp.float32(told[1][key]) for key in ("objective/kl_coef", "objective/kl")]
        np.testing.assert_allclose(last.extra.coefficient, controller(*now), rtol=1e-6)
        if name == "code":
            twice = np.tile(np.asarray(case.run.done.scores).ravel(), 2)
            np.testing.assert_allclose(last.extra.scores.mean, twice.mean(), rtol=1e-5)
            np.testing.assert_allclose(last.extra.scores.std(), twice.std(ddof=1), rtol=1e-5)


def test_running_moments_are_those_of_all_scores_so_far():
    """(21); a failed reward is not among them."""
    rng = np.random.default_rng(0)
    zero = jnp.zeros(())
    extra = on_policy.Carried(
        coefficient=zero, scores=on_policy.Moments(count=zero, mean=zero, squares=zero), sampler=None, reference=None
    )
    seen = []
    for _ in range(4):
        scores, valid = rng.normal(40, 3, (3, 5)).astype(np.float32), (rng.random((3, 5)) > 0.3).astype(np.float32)
        seen = np.concatenate([seen, scores[valid > 0]])
        found, told = on_policy.normalised(extra, jnp.where(valid, scores, 1e9), jnp.asarray(valid))
        np.testing.assert_allclose(found[valid > 0], (scores[valid > 0] - seen.mean()) / seen.std(ddof=1), atol=1e-4)
        extra = extra.replace(
            scores=on_policy.Moments(**{k: told[f"scores/{k}"] for k in ("count", "mean", "squares")})
        )
    np.testing.assert_allclose(extra.scores.count, len(seen))


def test_a_single_score_is_no_division_by_zero():
    zero = jnp.zeros(())
    moments = on_policy.Moments(count=zero, mean=zero, squares=zero)
    one = moments.with_scores(jnp.array([[3.0]]), jnp.array([[1.0]]))
    assert float(one.std()) == 1.0
    assert float(jax.grad(lambda s: one.replace(squares=s).std())(0.0)) == 0.0


def test_a_sampler_that_lags_is_the_policy_of_every_so_many_steps(rl_case):
    case = rl_case(cases.make_ppo, carrying=cases.STILL._replace(sync_every=2), importance_cap=2.0)
    now, policies = case.state.replace(extra=case.state.extra.replace(sampler=ppo.policy_of(case.state.trainable))), []
    for _ in range(3):
        policies.append(ppo.policy_of(now.trainable))
        now, _ = case.step(now, case.base, cases.experience(case, now), LIMIT)
    used = [params.blocks.q_proj.adapter.b for params in case.run.policies]
    mine = [policy.blocks.q_proj.b for policy in policies]
    np.testing.assert_array_equal(used[0], mine[0])
    np.testing.assert_array_equal(used[1], mine[0])
    np.testing.assert_array_equal(used[2], mine[2])
    assert float(jnp.abs(mine[1] - mine[0]).max()) > 0


def test_the_correction_of_a_lag_is_the_ratio_to_the_sampler_up_to_a_cap(rl_case, learned):
    corrected = cases.experience(rl_case(cases.make_ppo, importance_cap=1.5))
    sampled = cases.drawn().sampler_logps
    ratio = np.exp(np.asarray(learned.rows.logps) - np.asarray(sampled)) * np.asarray(learned.rows.weights)
    assert (ratio > 1.5).any() or (ratio < 0.9).any()
    wanted = learned.rows.advantages * np.minimum(ratio, 1.5)
    np.testing.assert_allclose(corrected.rows.advantages, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(corrected.rows.returns, learned.rows.returns)


def text_batch():
    from ftjax.data import batch, encode

    rng = np.random.default_rng(5)
    made = [
        encode.Example(rng.integers(1, 61, n).astype(np.int32), np.ones(n, np.uint8), "text:1")
        for n in range(5, 5 + cases.PROMPTS)
    ]  # fmt: skip
    return jax.tree.map(jnp.asarray, batch.pad_rows(made, length=16))


def test_ordinary_text_in_the_loss_is_sft_times_its_coefficient(rl_case, plain, tiny_config, rl_init):
    """(24): PPO-ptx. With microbatches, each with its share of the text."""
    case, text = rl_case(cases.make_ppo, text_coefficient=27.8), text_batch()
    rows = cases.experience(case, text=text).rows
    terms, weights, _ = jax.jit(case.algorithm.loss)(
        case.state.trainable, frozen(case.base, case.state.extra), rows, None
    )
    learner = sft.make(rl_init, tiny_config())
    values, counted, _ = jax.jit(learner.loss)(ppo.policy_of(case.state.trainable), case.base, text, None)
    np.testing.assert_allclose(
        reduce.masked_mean(terms[2], weights[2]), 27.8 * reduce.masked_mean(values, counted), rtol=1e-6
    )
    now, one = cases.trained(case, text=text)
    np.testing.assert_allclose(one[0]["loss/text_avg"], reduce.masked_mean(values, counted), rtol=1e-5)
    np.testing.assert_allclose(one[0]["loss"] - 27.8 * one[0]["loss/text_avg"], plain[2][0]["loss"], atol=1e-4)
    again, two = cases.trained(rl_case(cases.make_ppo, text_coefficient=27.8, microbatches=2), text=text)
    cases.assert_same(again.trainable, now.trainable, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(two[0]["loss"], one[0]["loss"], rtol=1e-5)


def test_the_reference_is_the_base_itself_or_what_trained_as_it_began(rl_case, plain):
    case = plain[0]
    extra = case.state.extra
    known = on_policy.reference(Frozen(case.base, extra))
    assert all(a is b for a, b in zip(jax.tree.leaves(known), jax.tree.leaves(case.base), strict=True))
    other = rl_case(cases.make_ppo, carrying=cases.STILL._replace(reference="start"))
    begun = other.state.extra.reference
    cases.assert_same(begun, ppo.policy_of(other.algorithm.init(jax.random.fold_in(jax.random.key(2), 1), other.base)))
    as_begun = other.state.replace(extra=other.state.extra.replace(reference=ppo.policy_of(other.state.trainable)))
    np.testing.assert_allclose(cases.experience(other, as_begun).told["objective/kl"], 0.0, atol=1e-6)


def test_four_models_are_one_base_and_small_trees(rl_case, tiny_config):
    """The step's arguments are the base once; what it allocates for few tokens is less than a second one."""
    shape = {"d_model": 256, "d_ff": 1024, "head_dim": 64}
    wide = params.init(jax.random.key(0), tiny_config(**shape), "float32")
    case = rl_case(cases.make_ppo, config=shape, params=wide)
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    rows = cases.experience(case)
    rows = rows._replace(rows=jax.tree.map(lambda x: x[:1], rows.rows))
    used = case.step.lower(case.state, wide, rows, LIMIT).compile().memory_analysis()
    projections = size([w for name, w in vars(wide.blocks).items() if name.endswith("_proj")])
    small = size(case.state.trainable)
    keyless = case.state.replace(key=None)
    assert small < 0.1 * projections
    assert used.argument_size_in_bytes < size(wide) + size(keyless) + size(rows) + 4096
    assert used.temp_size_in_bytes < projections
