"""Reward models: the head, where the score is read, what the loss is, and what must not matter to the curve."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import tree
from ftjax.adapters import attach
from ftjax.algorithms import reward_model
from ftjax.models import decoder
from ftjax.quant import convert
from tests import preference_cases as cases


@pytest.fixture(scope="module")
def plain(preference_case, preference_batch_of_8):
    """A reward model on pairs with margins and centring: the case, metrics of five steps, the last state."""
    case = preference_case(cases.make_reward)
    losses, metrics, last = cases.trained(case, preference_batch_of_8)
    assert losses[-1] < losses[0] - 0.05, "the case must learn, or equality means nothing"
    return case, metrics, last


@pytest.fixture(scope="module")
def score_of(plain, tiny_config):
    """Returns a function: tokens of a prompt and a completion -> the score, from these tokens alone."""
    case, _, last = plain
    whole = attach.attach(case.base, last.trainable)
    hidden = jax.jit(lambda ids: decoder.hidden(whole, ids, tiny_config()))

    def score(prompt, ids):
        both = np.concatenate([prompt, ids])
        states = hidden(np.pad(both, (0, 16 - len(both)))[None])
        return float((states[0, len(both) - 1] @ last.trainable.score)[0])

    return score


def as_batch(rows, **layout):
    return jax.tree.map(jnp.asarray, cases.batch_of(rows, **layout))


def test_the_loss_is_of_scores_at_the_last_token_of_each_completion(plain, score_of, preference_rows):
    """-log sigma(gap - 0.5 margin) + 0.01 (chosen + rejected)^2."""
    case, _, last = plain
    values, weights, metrics = jax.jit(case.algorithm.loss)(last.trainable, case.base, as_batch(preference_rows), None)
    assert (weights == 1).all()
    for number, row in enumerate(preference_rows):
        chosen, rejected = (score_of(row.prompt, ids) for ids in row.completions)
        found = {name: float(x.reshape(-1)[number]) for name, x in metrics.items()}
        assert found["rewards/chosen"] == pytest.approx(chosen, abs=1e-5)
        assert found["rewards/rejected"] == pytest.approx(rejected, abs=1e-5)
        assert found["margin"] == pytest.approx(chosen - rejected, abs=2e-5)
        assert found["accuracy"] == (chosen > rejected)
        gap = chosen - rejected - 0.5 * row.margins[0]
        expected = math.log1p(math.exp(-gap)) + 0.01 * (chosen + rejected) ** 2
        assert float(values.reshape(-1)[number]) == pytest.approx(expected, abs=1e-5)


def test_all_pairs_of_a_ranking_count_as_one_element(preference_case, plain, score_of, preference_rows):
    """InstructGPT, eq. 1: the mean over the pairs of a prompt, beside prompts with one pair."""
    case, _, last = plain
    first, second = preference_rows[:2]
    ranked = first._replace(
        completions=(*first.completions, second.completions[0]),
        masks=(*first.masks, second.masks[0]),
        pairs=((0, 1), (0, 2), (1, 2)),
        margins=(0.0,) * 3,
        labels=(math.nan,) * 3,
    )
    pure = preference_case(cases.make_reward, margin_scale=0.0, centring=0.0)
    values, weights, _ = jax.jit(pure.algorithm.loss)(last.trainable, case.base, as_batch([ranked, second]), None)
    assert float(weights.sum()) == pytest.approx(2)
    loss = lambda better, worse: math.log1p(math.exp(worse - better))
    a, b, c = (score_of(ranked.prompt, ids) for ids in ranked.completions)
    alone = loss(*(score_of(second.prompt, ids) for ids in second.completions))
    expected = (loss(a, b) + loss(a, c) + loss(b, c)) / 3 + alone
    assert float((values * weights).sum()) == pytest.approx(expected, abs=1e-5)


def test_labels_of_single_completions_are_binary_cross_entropy_and_those_without_one_count_nothing(
    preference_case, plain, score_of, preference_rows
):
    last = plain[2]
    rows = [row._replace(pairs=(), margins=(), labels=(0.25, math.nan)) for row in preference_rows]
    case = preference_case(lambda *given: reward_model.make_pointwise(*given))
    values, weights, _ = jax.jit(case.algorithm.loss)(last.trainable, case.base, as_batch(rows), None)
    scores = np.array([score_of(row.prompt, row.completions[0]) for row in rows])
    expected = 0.25 * np.log1p(np.exp(-scores)) + 0.75 * np.log1p(np.exp(scores))
    assert float(weights.sum()) == len(rows)
    np.testing.assert_allclose(np.asarray(values)[np.asarray(weights) > 0], expected, atol=1e-5)


def test_the_head_begins_as_a_normal_of_variance_one_over_width_plus_one(tiny_params, tiny_config, preference_case):
    """The same for a seed, whatever adapters stand beside it, and float32."""
    nothing = lambda _, base: jax.tree.map(lambda _: None, base)
    made = reward_model.with_head(nothing)
    heads = np.stack([np.asarray(made(jax.random.key(n), tiny_params).score) for n in range(200)])
    assert heads.shape == (200, tiny_config().d_model, 1)
    assert heads.dtype == np.float32
    assert abs(heads.mean()) < 4 * (heads.size * 33) ** -0.5
    assert heads.var() * 33 == pytest.approx(1, abs=4 * (2 / heads.size) ** 0.5)
    beside = preference_case(cases.make_reward).algorithm.init(jax.random.key(3), tiny_params)
    np.testing.assert_array_equal(beside.score, heads[3])


def test_head_and_adapters_train_and_the_base_does_not(plain, tiny_params):
    case, _, last = plain
    assert not np.array_equal(last.trainable.score, case.state.trainable.score)
    moved = tree.paths(jax.tree.map(lambda a, b: bool((a != b).any()), last.trainable, case.state.trainable))
    assert all(moved.values())
    assert len(moved) == 5, "A and B of two targets, and the head"
    for one, other in zip(jax.tree.leaves(case.base), jax.tree.leaves(tiny_params), strict=True):
        assert one is other


@pytest.mark.parametrize("bits", ["dense", pytest.param("nf4-dq", marks=pytest.mark.e2e)])
def test_what_must_not_matter_does_not_change_the_curve(
    bits, plain, preference_case, preference_rows, preference_batch_of_8, tiny_params
):
    """Microbatches, recomputing, an unrolled scan, padded rows and repeated prefixes at once."""
    if bits == "dense":
        base, known = tiny_params, plain[1]
    else:
        base = convert.quantize(tiny_params, bits, leaves=r"blocks\.\w+_proj", group=16)
        known = cases.trained(preference_case(cases.make_reward, params=base), preference_batch_of_8)[1]
        assert abs(known[-1]["loss"] - plain[1][-1]["loss"]) > 1e-4, "four bits are not the dense base"
        assert known[-1]["loss"] < known[0]["loss"] - 0.05
    case = preference_case(cases.make_reward, params=base, microbatches=4, config={"remat": "full", "unroll": 3})
    cases.same_metrics(cases.trained(case, cases.batch_of(preference_rows, each=1, prefix="repeated"))[1], known)
