"""KTO: labels one by one, held against a KL that other prompts' completions estimate."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.adapters import attach
from ftjax.algorithms import algorithm, completions
from ftjax.losses import reduce
from tests import preference_cases as cases

BETA, WEIGHT = cases.VALUES["beta"], cases.VALUES["undesirable_weight"]
AT_THE_START = (27 / 2 + 4 * WEIGHT / 2) / 31  # 1 - sigma(0) of each, times its weight


@pytest.fixture(scope="module")
def rows(preference_rows):
    """27 desirable completions, 4 undesirable, and one without a label."""
    second = [0.0 if number % 4 == 0 else 1.0 for number in range(16)]
    second[5] = math.nan
    return [
        row._replace(pairs=(), margins=(), labels=(1.0, label))
        for row, label in zip(cases.with_mismatched(preference_rows), second, strict=True)
    ]


@pytest.fixture(scope="module")
def plain(preference_case, rows):
    """KTO against the base: the case, metrics of five steps, the last state."""
    case = preference_case(cases.make_kto)
    losses, metrics, last = cases.trained(case, cases.batch_of(rows))
    assert losses[-1] < losses[0] - 0.01, "the case must learn, or equality means nothing"
    return case, metrics, last


@pytest.fixture(scope="module")
def moved(plain):
    """What trains, taken the other way than training took it: there the estimate of the KL is above 0."""
    case, _, last = plain
    return jax.tree.map(lambda old, new: 2 * old - new, case.state.trainable, last.trainable)


@pytest.fixture(scope="module")
def ratios(plain, moved, rows, tiny_config):
    """log pi - log ref of every completion of every row, mismatched ones last, and log ref."""
    case = plain[0]
    batch = jax.tree.map(jnp.asarray, cases.batch_of(rows, each=1))
    ask = jax.jit(lambda params: completions.of(params, batch, tiny_config(), ld_alpha=1.0, squares=False).logps)
    policy, reference = (ask(attach.attach(case.base, x)) for x in (moved, case.state.trainable))
    return np.asarray(policy, np.float64) - np.asarray(reference, np.float64), np.asarray(reference)


def test_kto_begins_at_half_of_each_weight_with_rewards_and_kl_of_zero(plain):
    first = plain[1][0]
    assert first["weight"] == 31
    assert first["loss"] == pytest.approx(AT_THE_START, abs=1e-6)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "kl"):
        assert first[name] == pytest.approx(0, abs=1e-6), name


def test_the_loss_is_held_against_the_mean_ratio_of_completions_of_other_prompts(plain, moved, rows, ratios):
    case = plain[0]
    batch = jax.tree.map(jnp.asarray, cases.batch_of(rows))
    values, weights, metrics = jax.jit(case.algorithm.loss)(moved, case.base, batch, None)
    found, _ = ratios
    kl = max(found[:, 2:].mean(), 0)
    assert kl > 1e-3, "the case must have one"
    labels = np.array([row.labels for row in rows])
    counted = np.isfinite(labels)
    sign = np.where(labels == 1, -1, 1)
    expected = np.where(labels == 1, 1, WEIGHT) / (1 + np.exp(-sign * BETA * (found[:, :2] - kl)))
    live = np.asarray(weights) > 0
    assert live.sum() == counted.sum() == 31
    np.testing.assert_allclose(np.asarray(values)[live], expected[counted], atol=1e-5)
    means = reduce.means(reduce.totals(metrics, weights))
    mean = lambda name: float(means[name])
    assert mean("kl") == pytest.approx(kl, abs=1e-5)
    assert mean("rewards/chosen") == pytest.approx(BETA * found[:, :2][labels == 1].mean(), abs=1e-5)
    assert mean("rewards/rejected") == pytest.approx(BETA * found[:, :2][labels == 0].mean(), abs=1e-5)


def test_cached_values_on_padded_rows_with_repeated_prefixes_give_the_same_curve(plain, preference_case, rows, ratios):
    cached = [row._replace(reference=tuple(found)) for row, found in zip(rows, ratios[1].tolist(), strict=True)]
    case = preference_case(cases.make_kto, reference="cached", config={"remat": "full"})
    batch = cases.batch_of(cached, each=1, prefix="repeated")
    cases.same_metrics(cases.trained(case, batch)[1], plain[1])


def test_without_a_kl_the_reference_point_is_zero_and_no_other_prompts_are_needed(preference_case, moved, rows, ratios):
    case = preference_case(cases.make_kto, name="apo_zero_unpaired", reference="start")
    alone = [row._replace(mismatched=(), mismatched_masks=()) for row in rows]
    batch = jax.tree.map(jnp.asarray, cases.batch_of(alone))
    frozen = algorithm.frozen(case.base, case.state.extra)
    values, weights, metrics = jax.jit(case.algorithm.loss)(moved, frozen, batch, None)
    labels = np.array([row.labels for row in rows])
    sign = np.where(labels == 1, -1, 1)
    expected = np.where(labels == 1, 1, WEIGHT) / (1 + np.exp(-sign * BETA * ratios[0][:, :2]))
    live = np.asarray(weights) > 0
    np.testing.assert_allclose(np.asarray(values)[live], expected[np.isfinite(labels)], atol=1e-5)
    assert "kl" not in metrics
