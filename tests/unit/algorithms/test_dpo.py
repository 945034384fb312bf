"""DPO and its family: what a step is at the start, that the reference stays where it is, and what must not matter."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.adapters import attach
from ftjax.algorithms import algorithm, completions, dpo
from ftjax.losses import divergence, weighting
from ftjax.models import decoder
from ftjax.quant import convert
from tests import preference_cases as cases

BETA, SMOOTHING = cases.VALUES["beta"], cases.VALUES["label_smoothing"]
LN2, TARGET = math.log(2), 0.5 / BETA
# Of every loss that is held against a reference, where policy and reference are equal.
AT_THE_START = {
    "dpo": LN2,
    "sigmoid": LN2,
    "hinge": 1.0,
    "ipo": TARGET**2,
    "robust": LN2,
    "exo_pair": -LN2 - (math.log(SMOOTHING) + math.log(1 - SMOOTHING)) / 2,
    "nca_pair": 2 * LN2,
    "bco_pair": 2 * LN2,
    "sppo_hard": 2 * TARGET**2,
    "aot": LN2,
    "aot_unpaired": LN2,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": (LN2 + 1) / 2,
    "sigmoid_norm": LN2,
}


@pytest.fixture(scope="module")
def plain(preference_case, preference_batch_of_8):
    """Plain DPO against the base: losses of five steps, their metrics, the last state."""
    case = preference_case(cases.make_dpo)
    losses, metrics, last = cases.trained(case, preference_batch_of_8)
    assert losses[-1] < losses[0] - 0.05, "the case must learn, or equality means nothing"
    return case, losses, metrics, last


def test_every_loss_with_a_reference_begins_at_its_known_value(preference_case, preference_batch_of_8):
    assert {name for name in AT_THE_START} == {
        name for name, function in vars(cases.preference).items()
        if callable(function) and getattr(function, "__annotations__", {}).get("return") == cases.preference.Loss
    }  # fmt: skip
    weights = {name: 0.25 + 0.5 * (n % 3) for n, name in enumerate(AT_THE_START)}
    terms = tuple(cases.term(name, weight) for name, weight in weights.items())
    case = preference_case(cases.make_dpo, terms=terms)
    _, metrics = case.step(case.state, case.base, preference_batch_of_8, jnp.float32(jnp.inf))
    for name, value in AT_THE_START.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], value, rtol=1e-6, err_msg=name)
    whole = sum(weights[name] * value for name, value in AT_THE_START.items())
    np.testing.assert_allclose(metrics["loss"], whole, rtol=1e-6)


def test_dpo_begins_at_log_2_with_rewards_of_zero(plain, preference_batch_of_8):
    _, losses, metrics, _ = plain
    assert abs(losses[0] - LN2) < 1e-6
    for name in ("chosen", "rejected", "margins"):
        assert abs(metrics[0][f"rewards/{name}"]) < 1e-6
    assert metrics[0]["weight"] == 16
    assert metrics[-1]["rewards/margins"] > 0.1
    assert metrics[-1]["rewards/accuracies"] == 1
    assert metrics[-1]["logps/chosen"] > metrics[0]["logps/chosen"]


def test_the_log_probabilities_are_those_of_each_completion_alone(
    tiny_params, tiny_config, preference_rows, preference_batch_of_8
):
    found = completions.of(
        tiny_params, preference_batch_of_8, tiny_config(), ld_alpha=1.0, squares=False
    )  # fmt: skip
    policy = completions.pairs(found.logps, preference_batch_of_8)
    lengths = completions.pair_lengths(found, preference_batch_of_8)
    live = preference_batch_of_8.pair_weights.reshape(-1) > 0
    assert live.all()
    ask = jax.jit(functools.partial(decoder.logits, config=tiny_config()))
    for number, row in enumerate(preference_rows[:6]):
        for side in (0, 1):
            ids = np.concatenate([row.prompt, row.completions[side]])
            filled = np.pad(ids, (0, 16 - len(ids)))[None]
            logps = jax.nn.log_softmax(ask(tiny_params, filled)[0])
            places = np.arange(len(row.prompt), len(ids))
            total = float(np.sum(np.asarray(logps)[places - 1, ids[places]] * row.masks[side]))
            np.testing.assert_allclose(policy[side][number], total, atol=1e-4)
            assert lengths[side][number] == row.masks[side].sum()


@pytest.fixture(scope="module")
def started(preference_case, preference_batch_of_8):
    """DPO against a copy of what trains as it began: the case, metrics, the last state."""
    case = preference_case(cases.make_dpo, reference="start")
    return case, *cases.trained(case, preference_batch_of_8)[1:]


@pytest.mark.parametrize("kind", ["cached", "start"])
def test_the_kind_of_reference_changes_no_number(kind, plain, preference_case, preference_rows, tiny_config, request):
    if kind == "start":
        metrics = request.getfixturevalue("started")[1]
    else:
        rows, case = preference_rows, preference_case(cases.make_dpo, reference=kind)
        alone = cases.batch_of(rows, each=1)
        base = completions.of(case.params, alone, tiny_config(), ld_alpha=1.0, squares=False).logps.tolist()
        rows = [row._replace(reference=tuple(found)) for row, found in zip(rows, base, strict=True)]
        metrics = cases.trained(case, cases.batch_of(rows))[1]
    np.testing.assert_allclose([found["loss"] for found in metrics], plain[1], atol=1e-5)
    for mine, theirs in zip(metrics, plain[2], strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_no_gradient_goes_through_the_reference(preference_case, preference_batch_of_8, plain):
    """Neither into a copy, nor into the base but by way of the policy."""
    batch = jax.tree.map(jnp.asarray, preference_batch_of_8)
    last = plain[3]

    def total(made, trainable, base, batch):
        values, weights, _ = made.loss(trainable, base, batch, None)
        return jnp.sum(values * weights)

    started = preference_case(cases.make_dpo, reference="start")
    frozen = algorithm.frozen(started.base, started.state.extra)
    of_copy = jax.jit(
        jax.grad(lambda extra: total(started.algorithm, last.trainable, frozen._replace(extra=extra), batch))
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(of_copy(started.state.extra)))
    of_policy = jax.jit(jax.grad(lambda trainable: total(started.algorithm, trainable, frozen, batch)))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(of_policy(last.trainable)))


def test_the_base_is_what_it_was_after_training(plain, tiny_config):
    from ftjax.models import params

    fresh = params.init(jax.random.key(0), tiny_config(), "float32")
    for one, other in zip(jax.tree.leaves(plain[0].base), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def few_bits(tiny_params):
    return convert.quantize(tiny_params, "nf4-dq", leaves=r"blocks\.\w+_proj", group=16)


@pytest.fixture(scope="module")
def over_few_bits(preference_case, preference_batch_of_8, few_bits):
    losses, _, _ = cases.trained(preference_case(cases.make_dpo, params=few_bits), preference_batch_of_8)
    assert losses[-1] < losses[0] - 0.05
    return losses


SAME = {
    "microbatches, recomputed": {"microbatches": 4, "config": {"remat": "full"}},
    "unrolled, padded": {"config": {"unroll": 3}, "each": 1},
    "repeated prefixes": {"prefix": "repeated"},
}


@pytest.mark.parametrize("what", SAME)
def test_what_must_not_matter_does_not_change_the_curve(what, plain, preference_case, preference_rows):
    changes = dict(SAME[what])
    layout = {name: changes.pop(name) for name in ("each", "prefix") if name in changes}
    losses, _, _ = cases.trained(preference_case(cases.make_dpo, **changes), cases.batch_of(preference_rows, **layout))
    np.testing.assert_allclose(losses, plain[1], atol=1e-5)


def test_what_must_not_matter_does_not_change_the_curve_over_a_base_in_four_bits(
    preference_case, preference_rows, few_bits, over_few_bits, plain
):
    """Microbatches, recomputing, padded rows and repeated prefixes at once."""
    assert abs(over_few_bits[-1] - plain[1][-1]) > 1e-4, "four bits are not the dense base"
    assert abs(over_few_bits[0] - LN2) < 1e-6
    case = preference_case(cases.make_dpo, params=few_bits, microbatches=2, config={"remat": "full"})
    losses, _, _ = cases.trained(case, cases.batch_of(preference_rows, each=1, prefix="repeated"))
    np.testing.assert_allclose(losses, over_few_bits, atol=1e-5)


def test_a_copy_that_is_never_told_to_move_stays_where_it_is(started):
    case, _, last = started
    for one, other in zip(jax.tree.leaves(last.extra), jax.tree.leaves(case.state.extra), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_copy_that_is_the_reference_moves_as_it_is_told(preference_case, preference_batch_of_8, started):
    """TR-DPO: every second step it goes 0.6 of the way to the policy."""
    case = preference_case(cases.make_dpo, reference="start", sync=dpo.Sync(every=2, alpha=0.6))
    now, expected = case.state, case.state.extra
    for number in range(1, 5):
        now, metrics = case.step(now, case.base, preference_batch_of_8, jnp.float32(jnp.inf))
        if number % 2 == 0:
            expected = jax.tree.map(lambda old, new: 0.4 * old + 0.6 * new, expected, now.trainable)
        for one, other in zip(jax.tree.leaves(now.extra), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
        if number == 3:
            after_sync = float(metrics["rewards/margins"])
    assert after_sync < 0.7 * started[1][2]["rewards/margins"], "rewards are against the moved copy"


def test_a_step_that_must_not_count_moves_no_reference(preference_case, preference_batch_of_8):
    case = preference_case(cases.make_dpo, reference="start", sync=dpo.Sync(every=2, alpha=0.6))
    now, _ = case.step(case.state, case.base, preference_batch_of_8, jnp.float32(jnp.inf))
    after, metrics = case.step(now, case.base, preference_batch_of_8, jnp.float32(0.1))
    assert metrics["applied"] == 0
    for one, other in zip(jax.tree.leaves(after.extra), jax.tree.leaves(now.extra), strict=True):
        np.testing.assert_array_equal(one, other)


def values_of(case, batch, trainable):
    values, weights, metrics = jax.jit(case.algorithm.loss)(trainable, case.base, batch, None)
    return np.asarray(values), np.asarray(weights), {name: np.asarray(x) for name, x in metrics.items()}


@pytest.fixture(scope="module")
def batch_for_values(preference_batch_of_8):
    return jax.tree.map(jnp.asarray, preference_batch_of_8)


def test_a_sum_of_losses_is_the_sum_of_its_parts(preference_case, batch_for_values, plain):
    """MPO: the mean of each is beside the sum, and rewards are those of the policy itself."""
    last = plain[3].trainable
    parts = [cases.term("dpo", 0.8, label_smoothing=0.0), cases.term("bco_pair", 0.2), cases.term("sft", 1.0)]
    mixed, _, metrics = values_of(preference_case(cases.make_dpo, terms=tuple(parts)), batch_for_values, last)
    alone = [
        values_of(preference_case(cases.make_dpo, terms=(part._replace(weight=1.0),)), batch_for_values, last)
        for part in parts
    ]
    np.testing.assert_allclose(
        mixed, sum(p.weight * found[0] for p, found in zip(parts, alone, strict=True)), atol=1e-5
    )
    for part, found in zip(parts, alone, strict=True):
        np.testing.assert_allclose(metrics[f"loss/{part.name}"], found[0], atol=1e-5)
        assert not any(name.startswith("loss/") for name in found[2])
    for name in ("rewards/chosen", "rewards/margins", "logps/chosen"):
        np.testing.assert_allclose(metrics[name], alone[0][2][name], atol=1e-5)
    np.testing.assert_allclose(metrics["nll_loss"], alone[2][0], atol=1e-5)


def test_a_divergence_shapes_the_ratios_and_leaves_the_rewards(preference_case, batch_for_values, plain):
    last = plain[3].trainable
    plain_values, _, told = values_of(plain[0], batch_for_values, last)
    shaped, _, metrics = values_of(
        preference_case(cases.make_dpo, divergence=divergence.js_divergence), batch_for_values, last
    )
    ratios = [told[f"rewards/{name}"].astype(np.float64) / BETA for name in ("chosen", "rejected")]
    chosen, rejected = (math.log(2) - np.log1p(np.exp(-x)) for x in ratios)
    np.testing.assert_allclose(shaped, np.log1p(np.exp(-BETA * (chosen - rejected))), atol=1e-5)
    assert np.abs(shaped - plain_values).max() > 1e-3
    for name in told:
        np.testing.assert_allclose(metrics[name], told[name], atol=1e-5, err_msg=name)


def test_ld_alpha_weighs_what_the_longer_completion_has_more(
    preference_case, preference_rows, batch_for_values, plain, tiny_config
):
    """Policy and reference alike; at 0 both completions of a pair have as many tokens."""
    last = plain[3].trainable
    case = preference_case(cases.make_dpo, ld_alpha=0.0)
    values, _, metrics = values_of(case, batch_for_values, last)
    shortened = []
    for row in preference_rows:
        short = min(int(mask.sum()) for mask in row.masks)
        masks = tuple((np.cumsum(mask) <= short).astype(np.uint8) * mask for mask in row.masks)
        shortened.append(row._replace(masks=masks))
    by_hand, _, told = values_of(plain[0], jax.tree.map(jnp.asarray, cases.batch_of(shortened)), last)
    np.testing.assert_allclose(values, by_hand, atol=1e-5)
    np.testing.assert_allclose(metrics["logps/rejected"], told["logps/rejected"], atol=1e-4)
    assert np.abs(values - values_of(plain[0], batch_for_values, last)[0]).max() > 1e-3


def test_wpo_weighs_a_pair_by_how_likely_the_policy_is_to_write_it_whatever_ld_alpha_is(
    preference_case, batch_for_values, plain, tiny_config
):
    last, base = plain[3].trainable, plain[0].base
    found = completions.of(
        attach.attach(base, last), batch_for_values, tiny_config(), ld_alpha=1.0, squares=True
    )  # fmt: skip
    weights = weighting.wpo(
        completions.pairs(found.logps, batch_for_values),
        completions.pairs(found.log_sum_squares, batch_for_values),
        lengths=completions.pair_lengths(found, batch_for_values),
    ).reshape(batch_for_values.pair_weights.shape)
    assert 1e-3 < float(weights.min()) < float(weights.max()) < 10
    assert float(weights.std()) > 1e-3
    for ld_alpha in (1.0, 0.5):
        unweighted = values_of(preference_case(cases.make_dpo, ld_alpha=ld_alpha), batch_for_values, last)[0]
        weighed = values_of(preference_case(cases.make_dpo, ld_alpha=ld_alpha, wpo=True), batch_for_values, last)[0]
        np.testing.assert_allclose(weighed, unweighted * weights, rtol=1e-4)


def test_a_loss_without_a_reference_runs_none_and_trains_the_weights_themselves(
    preference_case, preference_batch_of_8, monkeypatch
):
    counted = []
    of = completions.of
    monkeypatch.setattr(completions, "of", lambda *args, **more: counted.append(1) or of(*args, **more))
    terms = (cases.term("simpo", beta=2.0, label_smoothing=0.0),)
    case = preference_case(cases.make_dpo, terms=terms, reference="none", full=True)
    losses, metrics, _ = cases.trained(case, preference_batch_of_8, steps=3)
    assert losses[-1] < losses[0]
    assert len(counted) == 1
    assert case.algorithm.reference is None
    assert case.state.extra is None
    assert "rewards/margins" in metrics[0]


def test_full_fine_tuning_against_a_copy_begins_at_log_2(preference_case, preference_batch_of_8):
    case = preference_case(cases.make_dpo, reference="start", full=True)
    losses, _, last = cases.trained(case, preference_batch_of_8, steps=3)
    assert abs(losses[0] - LN2) < 1e-6
    assert losses[-1] < losses[0] - 0.05
    for one, other in zip(jax.tree.leaves(last.extra), jax.tree.leaves(case.params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_step_holds_one_copy_of_the_base_and_no_more_memory_than_one_of_sft(preference_case, sft_case, tiny_config):
    """Wide frozen matrices and a wide vocabulary; the same number of tokens."""
    from ftjax.data import batch as batches
    from ftjax.data import preference_batch
    from ftjax.models import params

    shape = {"d_model": 256, "d_ff": 1024, "head_dim": 64, "vocab_size": 4096}
    wide = params.init(jax.random.key(0), tiny_config(**shape), "float32")
    tokens, of_completions = (4, 128), (4, 4)
    array = lambda size, dtype: jax.ShapeDtypeStruct(size, dtype)
    floats, small = preference_batch._FLOATS, preference_batch._OF_COMPLETIONS | preference_batch._OF_PAIRS
    pairs = preference_batch.PreferenceBatch(
        *(array(of_completions if name in small else tokens, "float32" if name in floats else "int32")
          for name in preference_batch.PreferenceBatch._fields)
    )  # fmt: skip
    rows = batches.SFTBatch(*(array(tokens, kind) for kind in ("int32", "int32", "float32", "int32", "int32")))
    limit = jnp.float32(jnp.inf)
    dpo_case, supervised = preference_case(cases.make_dpo, params=wide, config=shape), sft_case(params=wide, **shape)
    memory = lambda case, batch: case.step.lower(case.state, case.base, batch, limit).compile().memory_analysis()
    mine, theirs = memory(dpo_case, pairs), memory(supervised, rows)
    nbytes = lambda tree: sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
    state = dpo_case.state.replace(key=None)
    given = nbytes(wide) + nbytes(state) + nbytes(pairs)
    assert abs(mine.argument_size_in_bytes - given) < 4096
    assert mine.output_size_in_bytes < nbytes(state) + 4096
    assert mine.temp_size_in_bytes < nbytes(wide), "a second copy of the base"
    assert mine.temp_size_in_bytes < 1.1 * theirs.temp_size_in_bytes + 2**16
