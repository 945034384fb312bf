"""DPO and its family: what a step is at the start, that the reference stays where it is, and what must not matter."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.adapters import attach
from ftjax.algorithms import algorithm, completions, dpo, sft
from ftjax.data import batch as batches
from ftjax.losses import divergence
from ftjax.models import decoder, params
from ftjax.quant import convert
from tests import preference_cases as cases

BETA, SMOOTHING = cases.VALUES["beta"], cases.VALUES["label_smoothing"]
LN2, TARGET, INF = math.log(2), 0.5 / BETA, jnp.float32(jnp.inf)
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
    """Plain DPO against the base: the case, losses of five steps, their metrics, the last state."""
    case = preference_case(cases.make_dpo)
    losses, metrics, last = cases.trained(case, preference_batch_of_8)
    assert losses[-1] < losses[0] - 0.05, "the case must learn, or equality means nothing"
    return case, losses, metrics, last


@pytest.fixture(scope="module")
def started(preference_case, preference_batch_of_8):
    """DPO against a copy that moves after the sixth step (TR-DPO): the case, states and metrics of seven steps."""
    case = preference_case(cases.make_dpo, reference="start", sync=dpo.Sync(every=6, alpha=0.6))
    states, metrics = [case.state], []
    for _ in range(7):
        after, told = case.step(states[-1], case.base, preference_batch_of_8, INF)
        states.append(after)
        metrics.append({name: float(value) for name, value in told.items()})
    return case, states, metrics


@pytest.fixture(scope="module")
def everything(preference_case):
    """A sum of all losses that are held against a reference, and of the SFT term, compiled once; no step."""
    weights = {name: 0.25 + 0.5 * (n % 3) for n, name in enumerate((*AT_THE_START, "sft"))}
    terms = tuple(cases.term(name, weight) for name, weight in weights.items())
    case = preference_case(cases.make_dpo, terms=terms)
    return weights, case, jax.jit(case.algorithm.loss)


@pytest.fixture(scope="module")
def batch(preference_batch_of_8):
    return jax.tree.map(jnp.asarray, preference_batch_of_8)


@pytest.fixture(scope="module")
def plain_values(plain):
    return jax.jit(plain[0].algorithm.loss)


def values_of(case, batch, trainable):
    """Returns loss and metrics of every pair, [B, P]."""
    values, _, metrics = jax.jit(case.algorithm.loss)(trainable, case.base, batch, None)
    return np.asarray(values), jax.tree.map(np.asarray, metrics)


def test_every_loss_with_a_reference_begins_at_its_known_value(everything, batch):
    known = {
        name for name, function in vars(cases.preference).items()
        if getattr(function, "__annotations__", {}).get("return") == cases.preference.Loss
    }  # fmt: skip
    assert set(AT_THE_START) == known
    weights, case, run = everything
    values, _, metrics = run(case.state.trainable, case.base, batch, None)
    for name, value in AT_THE_START.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], value, rtol=2e-6, err_msg=name)
    whole = sum(weights[name] * value for name, value in AT_THE_START.items())
    np.testing.assert_allclose(values - weights["sft"] * metrics["loss/sft"], whole, rtol=2e-6)


def test_a_sum_of_losses_is_the_sum_of_its_parts(everything, batch, plain, plain_values):
    """MPO: every part is beside the sum, and rewards are those of the policy itself."""
    weights, case, run = everything
    last = plain[3].trainable
    values, _, metrics = run(last, case.base, batch, None)
    parts = sum(weight * metrics[f"loss/{name}"] for name, weight in weights.items())
    np.testing.assert_allclose(values, parts, rtol=1e-5)
    alone, _, told = plain_values(last, plain[0].base, batch, None)
    smoothed = (1 - SMOOTHING) * alone + SMOOTHING * (alone + told["rewards/margins"])
    np.testing.assert_allclose(metrics["loss/dpo"], smoothed, atol=1e-5)
    np.testing.assert_allclose(metrics["loss/sigmoid"], smoothed, atol=1e-5)
    np.testing.assert_allclose(metrics["nll_loss"], metrics["loss/sft"], atol=1e-6)
    assert not any(name.startswith("loss/") for name in told)
    for name in told:
        np.testing.assert_allclose(metrics[name], told[name], atol=1e-5, err_msg=name)


def test_dpo_begins_at_log_2_with_rewards_of_zero(plain):
    _, losses, metrics, _ = plain
    assert abs(losses[0] - LN2) < 1e-6
    for name in ("chosen", "rejected", "margins"):
        assert abs(metrics[0][f"rewards/{name}"]) < 1e-6
    assert metrics[0]["weight"] == 16
    assert metrics[-1]["rewards/margins"] > 0.1
    assert metrics[-1]["rewards/accuracies"] == 1


def test_the_log_probabilities_are_those_of_each_completion_alone(
    tiny_params, tiny_config, preference_rows, plain, plain_values, batch
):
    case = plain[0]
    _, _, told = plain_values(case.state.trainable, case.base, batch, None)
    ask = jax.jit(functools.partial(decoder.logits, config=tiny_config()))
    for number, row in enumerate(preference_rows):
        for side, name in enumerate(("chosen", "rejected")):
            ids = np.concatenate([row.prompt, row.completions[side]])
            logps = jax.nn.log_softmax(ask(tiny_params, np.pad(ids, (0, 16 - len(ids)))[None])[0])
            places = np.arange(len(row.prompt), len(ids))
            total = float(np.sum(np.asarray(logps)[places - 1, ids[places]] * row.masks[side]))
            np.testing.assert_allclose(told[f"logps/{name}"].reshape(-1)[number], total, atol=1e-4)


def test_a_copy_as_reference_changes_no_number_while_it_stays_where_it_was(plain, started):
    case, states, metrics = started
    cases.same_metrics(metrics[:5], plain[2])
    for one, other in zip(jax.tree.leaves(states[5].extra), jax.tree.leaves(case.state.trainable), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_copy_that_is_the_reference_moves_as_it_is_told(started):
    """TR-DPO: after the sixth step 0.6 of the way to the policy, and not after the fifth or the seventh."""
    _, states, metrics = started
    moved = jax.tree.map(lambda old, new: 0.4 * old + 0.6 * new, states[5].extra, states[6].trainable)
    for number in (6, 7):
        for one, other in zip(jax.tree.leaves(states[number].extra), jax.tree.leaves(moved), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    margins = [told["rewards/margins"] for told in metrics]
    assert margins[6] < 0.7 * margins[5], "rewards are against the copy that has moved"


def test_a_step_that_must_not_count_moves_no_reference(started, preference_batch_of_8):
    case, states, _ = started
    after, metrics = case.step(states[5], case.base, preference_batch_of_8, jnp.float32(0.0))
    assert metrics["applied"] == 0
    for one, other in zip(jax.tree.leaves(after.extra), jax.tree.leaves(states[5].extra), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_gradient_goes_through_the_reference(started, batch):
    case, states, _ = started

    def total(extra):
        values, weights, _ = case.algorithm.loss(
            states[5].trainable, algorithm.frozen(case.base, extra), batch, None
        )  # fmt: skip
        return jnp.sum(values * weights)

    gradient = jax.jit(jax.grad(total))(states[5].extra)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_the_base_is_what_it_was_after_training(plain, tiny_config):
    fresh = params.init(jax.random.key(0), tiny_config(), "float32")
    for one, other in zip(jax.tree.leaves(plain[0].base), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_array_equal(one, other)


def test_four_microbatches_recomputed_on_repeated_prefixes_give_the_same_curve(plain, preference_case, preference_rows):
    case = preference_case(cases.make_dpo, microbatches=4, config={"remat": "full"})
    cases.same_metrics(cases.trained(case, cases.batch_of(preference_rows, prefix="repeated"))[1], plain[2])


def test_a_cached_reference_on_padded_rows_and_an_unrolled_scan_gives_the_same_curve(
    plain, plain_values, batch, preference_case, preference_rows
):
    case = plain[0]
    _, _, told = plain_values(case.state.trainable, case.base, batch, None)
    values = zip(told["logps/chosen"].reshape(-1).tolist(), told["logps/rejected"].reshape(-1).tolist(), strict=True)
    rows = [row._replace(reference=found) for row, found in zip(preference_rows, values, strict=True)]
    other = preference_case(cases.make_dpo, reference="cached", config={"unroll": 3})
    assert other.algorithm.reference is None
    cases.same_metrics(cases.trained(other, cases.batch_of(rows, each=1))[1], plain[2])


def test_what_must_not_matter_does_not_matter_over_a_base_in_four_bits(
    preference_case, preference_rows, preference_batch_of_8, tiny_params, plain
):
    """Microbatches, recomputing, padded rows and repeated prefixes at once."""
    few = convert.quantize(tiny_params, "nf4-dq", leaves=r"blocks\.\w+_proj", group=16)
    losses, metrics, _ = cases.trained(preference_case(cases.make_dpo, params=few), preference_batch_of_8)
    assert abs(losses[0] - LN2) < 1e-6
    assert losses[-1] < losses[0] - 0.05
    assert abs(losses[-1] - plain[1][-1]) > 1e-4, "four bits are not the dense base"
    case = preference_case(cases.make_dpo, params=few, microbatches=2, config={"remat": "full"})
    cases.same_metrics(cases.trained(case, cases.batch_of(preference_rows, each=1, prefix="repeated"))[1], metrics)


def test_a_divergence_shapes_the_ratios_and_leaves_the_rewards(preference_case, batch, plain, plain_values):
    last = plain[3].trainable
    alone, _, told = plain_values(last, plain[0].base, batch, None)
    shaped, metrics = values_of(preference_case(cases.make_dpo, divergence=divergence.js_divergence), batch, last)
    ratios = [np.asarray(told[f"rewards/{name}"], np.float64) / BETA for name in ("chosen", "rejected")]
    chosen, rejected = (math.log(2) - np.log1p(np.exp(-x)) for x in ratios)
    np.testing.assert_allclose(shaped, np.log1p(np.exp(-BETA * (chosen - rejected))), atol=1e-5)
    assert np.abs(shaped - alone).max() > 1e-3
    for name in told:
        np.testing.assert_allclose(metrics[name], told[name], atol=1e-5, err_msg=name)


def test_ld_alpha_weighs_what_the_longer_completion_has_more(
    preference_case, preference_rows, batch, plain, plain_values
):
    """Policy and reference alike; at 0 both completions of a pair have as many tokens."""
    last = plain[3].trainable
    values, metrics = values_of(preference_case(cases.make_dpo, ld_alpha=0.0), batch, last)
    shortened = []
    for row in preference_rows:
        short = min(int(mask.sum()) for mask in row.masks)
        masks = tuple((np.cumsum(mask) <= short).astype(np.uint8) * mask for mask in row.masks)
        shortened.append(row._replace(masks=masks))
    cut = jax.tree.map(jnp.asarray, cases.batch_of(shortened))
    by_hand, _, told = plain_values(last, plain[0].base, cut, None)
    np.testing.assert_allclose(values, by_hand, atol=1e-5)
    np.testing.assert_allclose(metrics["logps/rejected"], told["logps/rejected"], atol=1e-4)
    assert np.abs(values - plain_values(last, plain[0].base, batch, None)[0]).max() > 1e-3


def test_wpo_weighs_a_pair_by_how_likely_the_policy_is_to_write_all_of_it(
    preference_case, preference_rows, batch, plain, tiny_config, tiny_params
):
    """Whatever ld_alpha is: tokens past the shorter completion are written too."""
    last = plain[3].trainable
    values, metrics = values_of(preference_case(cases.make_dpo, ld_alpha=0.5, wpo=True), batch, last)
    ask = jax.jit(lambda ids: jax.nn.log_softmax(decoder.logits(attach.attach(tiny_params, last), ids, tiny_config())))
    for number, row in enumerate(preference_rows):
        likely = 0.0
        for ids, mask in row.branches():
            whole = np.concatenate([row.prompt, ids])
            logps = np.asarray(ask(np.pad(whole, (0, 16 - len(whole)))[None])[0], np.float64)
            before = np.arange(len(row.prompt), len(whole)) - 1
            above = logps[before, ids] - np.log(np.exp(2 * logps[before]).sum(axis=1))
            likely += (above * mask).sum() / mask.sum()
        margin = metrics["rewards/margins"].reshape(-1)[number]
        np.testing.assert_allclose(
            values.reshape(-1)[number], np.exp(likely) * np.log1p(np.exp(-margin)), rtol=1e-4
        )  # fmt: skip


def test_a_loss_without_a_reference_runs_none(preference_case, batch, monkeypatch):
    counted, of = [], completions.of
    monkeypatch.setattr(completions, "of", lambda *args, **more: counted.append(1) or of(*args, **more))
    case = preference_case(cases.make_dpo, terms=(cases.term("simpo"),), reference="none", full=True)
    _, _, metrics = jax.eval_shape(case.algorithm.loss, case.state.trainable, case.base, batch, None)
    assert len(counted) == 1
    assert case.algorithm.reference is None
    assert case.state.extra is None
    assert "rewards/margins" in metrics


def test_full_fine_tuning_against_a_copy_begins_at_log_2(preference_case, preference_batch_of_8):
    case = preference_case(cases.make_dpo, reference="start", full=True)
    losses, _, last = cases.trained(case, preference_batch_of_8, steps=3)
    assert abs(losses[0] - LN2) < 1e-6
    assert losses[-1] < losses[0] - 0.05
    for one, other in zip(jax.tree.leaves(last.extra), jax.tree.leaves(case.params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_step_holds_one_copy_of_the_base_and_no_more_memory_than_one_of_sft(preference_case, tiny_config):
    """Wide frozen matrices, few tokens, as many in both; the state is donated."""
    shape = {"d_model": 256, "d_ff": 1024, "head_dim": 64, "n_layers": 8, "windows": (0,) * 8}
    wide = params.init(jax.random.key(0), tiny_config(**shape), "float32")
    ids = np.arange(1, 7, dtype=np.int32)
    pair = cases.candidates.Candidates(
        prompt=ids[:4],
        completions=(ids, ids[::-1]),
        masks=(np.ones(6, np.uint8),) * 2,
        pairs=((0, 1),),
        margins=(0.0,),
        labels=(1.0, 0.0),
        where="test:1",
    )
    pairs = cases.batch_of([pair])
    rows = batches.SFTBatch(*pairs[: len(batches.SFTBatch._fields)])

    def memory(make, batch):
        case = preference_case(make, params=wide, config=shape)
        program = jax.jit(case.step.__wrapped__, donate_argnums=0).lower(case.state, case.base, batch, INF)
        return program.compile().memory_analysis(), case.state.replace(key=None)

    (mine, state), (theirs, _) = memory(cases.make_dpo, pairs), memory(sft.make, rows)
    nbytes = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    assert abs(mine.argument_size_in_bytes - nbytes(wide) - nbytes(state) - nbytes(pairs)) < 4096
    assert mine.temp_size_in_bytes < 0.5 * nbytes(wide), "a second copy of the base"
    assert mine.temp_size_in_bytes < 1.1 * theirs.temp_size_in_bytes + 2**15
