"""GRPO, GSPO, CISPO, REINFORCE: against TRL's numbers, their formulas in float64, and what they are said to do."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ftjax.algorithms import algorithm
from ftjax.losses import normalise, policy
from ftjax.train import state, step
from tests.unit.losses import loss_cases

# The batch of interop.md, 2g, and what TRL's formulas give on it with advantages of 1 and -1 and clips of .2.
MASK = jnp.array([[1, 1, 0], [1, 1, 1]], jnp.float32)
NEW = np.array([[-1, -0.5, -2], [-0.2, -1.5, -0.7]], np.float32)
OLD = np.array([[-1.2, -0.6, -1.5], [-0.2, -1, -1]], np.float32)
ADVANTAGES = np.array([[1, 1, 1], [-1, -1, -1]], np.float32)
ROWS = jnp.ones(2, jnp.float32)
CLIPS = {"clip_low": 0.2, "clip_high": 0.2}
CASE = {
    "logps": NEW, "old_logps": OLD, "advantages": ADVANTAGES, "reference": OLD, "mask": MASK, "beta": 0.1, **CLIPS
}  # fmt: skip


def run(function, **changes):
    """Returns losses and metrics of a loss on the case, given what its signature asks for."""
    given = CASE | ({"advantages": ADVANTAGES[:, 0]} if function is policy.gspo else {}) | changes
    given = {name: x for name, x in given.items() if name in inspect.signature(function).parameters}
    hyper = {name: x for name, x in given.items() if isinstance(x, float)}
    return program(function, tuple(hyper.items()))(**{name: x for name, x in given.items() if name not in hyper})


@functools.cache
def program(function, hyper):
    """One program of all operations of a loss: it compiles faster than they do one by one."""
    return jax.jit(functools.partial(function, **dict(hyper)))


def slope(function, at):
    return jax.jit(jax.grad(function))(at)


@jax.jit
def mean(found):
    """The division of the step."""
    return jnp.sum(found.losses * found.weights) / jnp.sum(found.weights)


NORMALISERS = {
    "per_sequence": jax.jit(normalise.per_sequence),
    "per_token": jax.jit(normalise.per_token),
    "per_length": jax.jit(functools.partial(normalise.per_length, max_completion_length=4)),
}
each_normaliser = pytest.mark.parametrize("normaliser", NORMALISERS.values(), ids=NORMALISERS)


def test_the_three_normalisers_give_the_numbers_of_trl():
    losses, _ = run(policy.clipped_surrogate)
    found = [mean(normaliser(losses, MASK, ROWS)) for normaliser in NORMALISERS.values()]
    np.testing.assert_allclose(found, [-0.0513163, 0.1689376, 0.1055860], atol=1e-6)


def test_the_ratio_of_a_sequence_is_that_of_trl():
    """Where nothing is clipped the loss over -A is the ratio."""
    losses, _ = run(policy.gspo, clip_high=0.5)
    np.testing.assert_allclose(losses[:, 0], [-1.161834, 0.935507], atol=1e-6)
    np.testing.assert_array_equal(losses, jnp.broadcast_to(losses[:, :1], (2, 3)))


def formulas(x):
    """Each loss as a sum over the tokens of `mask` of its float64 formula, by the name of the function.

    The weights that get no gradient are fixed at the case's log-probabilities.
    """
    old, ref, a, m = (np.asarray(CASE[name], np.float64) for name in ("old_logps", "reference", "advantages", "mask"))
    at = np.asarray(NEW, np.float64)
    sequence = lambda z: np.exp((m * (z - old)).sum(1, keepdims=True) / m.sum(1, keepdims=True))
    surrogate = lambda r: -np.minimum(a * r, a * np.clip(r, 0.8, 1.2))
    k3 = np.exp(ref - x) - 1 - (ref - x)
    return {
        "clipped_surrogate": surrogate(np.exp(x - old)),
        "kl_penalty": 0.1 * k3,
        "grpo": surrogate(np.exp(x - old)) + 0.1 * k3,
        "gspo": surrogate(sequence(x)) + 0 * x,
        "gspo_token": surrogate(sequence(at) * np.exp(x - at)),
        "cispo": -a * np.clip(np.exp(at - old), 0.8, 1.2) * x,
        "reinforce": -a * x,
    }


@pytest.mark.parametrize("name", formulas(np.asarray(NEW, np.float64)))
def test_a_loss_and_its_gradient_are_those_of_its_formula_in_float64(name):
    function, at, counts = getattr(policy, name), np.asarray(NEW, np.float64), np.asarray(MASK)
    np.testing.assert_allclose(run(function)[0], formulas(at)[name], atol=1e-5)
    gradient = slope(lambda logps: jnp.sum(MASK * run(function, logps=logps)[0]), NEW)
    wanted = loss_cases.slopes(lambda x: counts * formulas(x)[name], at, step=1e-6)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)
    assert not np.asarray(gradient)[0, 2].any()


def test_gspo_token_is_gspo_where_all_tokens_have_one_advantage():
    def total(function):
        return lambda logps: mean(normalise.per_sequence(run(function, logps=logps, clip_high=0.5)[0], MASK, ROWS))

    both = policy.gspo, policy.gspo_token
    np.testing.assert_allclose(*(total(f)(NEW) for f in both), atol=1e-6)
    found, wanted = (slope(total(f), NEW) for f in both)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(wanted).max() > 0.1


def test_the_ratio_of_a_sequence_sees_no_padding():
    junk = np.where(MASK == 0, np.float32(np.nan), np.float32(0.0))
    for function in (policy.gspo, policy.gspo_token):
        clean, _ = run(function)
        dirty = run(function, logps=NEW + junk)[0]
        np.testing.assert_array_equal(np.where(MASK != 0, dirty, 0), np.where(MASK != 0, clean, 0))
    gradient = slope(lambda logps: jnp.sum(jnp.where(MASK != 0, run(policy.gspo, logps=logps)[0], 0)), NEW + junk)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["clipped_surrogate", "grpo", "gspo", "gspo_token", "cispo", "reinforce"])
def test_on_policy_every_loss_has_the_gradient_of_reinforce(name):
    def total(function):
        return lambda logps: mean_of(run(function, logps=logps, old_logps=NEW, reference=NEW)[0])

    mean_of = lambda losses: mean(normalise.per_sequence(losses, MASK, ROWS))
    found, wanted = (slope(total(f), NEW) for f in (getattr(policy, name), policy.reinforce))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_clipped_token_moves_by_cispo_and_by_no_surrogate():
    old, one = np.full((1, 1), -2, np.float32), np.ones((1, 1), np.float32)
    given = {"advantages": one, "old_logps": old}
    of = lambda f, **more: slope(lambda x: jnp.sum(run(f, logps=x, **given, **more)[0]), old + one)[0, 0]
    assert of(policy.clipped_surrogate) == 0
    np.testing.assert_allclose(of(policy.cispo), -1.2, rtol=1e-6)
    np.testing.assert_allclose(of(policy.cispo, clip_high=4.0), -np.e, rtol=1e-6)


def test_clip_ratios_count_bad_tokens_below_and_good_ones_above():
    """The ratios are 1.22, 1.11, .61 and 1, .61, 1.35; advantages are 1 in row 0 and -1 in row 1."""
    _, metrics = run(policy.grpo)
    assert metrics["clip_ratio/high_mean"].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert metrics["clip_ratio/low_mean"].tolist() == [[0, 0, 0], [0, 1, 0]]
    assert metrics["clip_ratio/region_mean"].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert run(policy.cispo)[1]["cispo_clip_ratio"].tolist() == [[1, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(np.sum(np.asarray(metrics["kl"]) * MASK) / 5, 0.0426215, atol=1e-6)


def test_the_gradient_of_the_kl_penalty_is_that_of_the_other_kl():
    """By enumeration: over samples of pi the mean of k3 is KL(pi || ref), of its gradient that of KL(ref || pi)."""
    logits, other = np.random.default_rng(0).standard_normal((2, 1, 8)).astype(np.float32)

    @jax.jit
    def compared(logits):
        ref, pi = jax.nn.log_softmax(other), jax.nn.softmax(logits)
        penalty = lambda z: policy.kl_penalty(logps=jax.nn.log_softmax(z), reference=ref, beta=1.0)[0]
        values = jnp.sum(pi * penalty(logits)), jnp.sum(pi * (jnp.log(pi) - ref))
        slopes = (
            jax.grad(lambda z: jnp.sum(pi * penalty(z)))(logits),
            jax.grad(lambda z: jnp.sum(jnp.exp(ref) * (ref - jax.nn.log_softmax(z))))(logits),
        )
        return values, slopes

    values, slopes = compared(logits)
    np.testing.assert_allclose(*values, rtol=1e-5)
    np.testing.assert_allclose(*slopes, atol=1e-6)


def test_dual_clip_bounds_the_loss_of_bad_tokens_alone():
    """Ratios of 5, 5, 2 and .1."""
    at = np.log(np.array([[5.0, 5.0, 2.0, 0.1]], np.float32)) - 9
    given = {"old_logps": np.full((1, 4), -9, np.float32), "advantages": np.array([[-1, 1, -1, -1]], np.float32)}

    @jax.jit
    def total(logps):
        losses, _ = run(policy.clipped_surrogate, logps=logps, **given)
        losses, metrics = policy.dual_clip(losses, jnp.asarray(given["advantages"]), bound=3.0)
        return jnp.sum(losses), (losses, metrics)

    (_, (losses, metrics)), gradient = jax.value_and_grad(total, has_aux=True)(at)
    np.testing.assert_allclose(losses, [[3.0, -1.2, 2.0, 0.8]], rtol=1e-5)
    assert metrics["policy/dual_clipfrac_avg"].tolist() == [[1, 0, 0, 0]]
    np.testing.assert_allclose(gradient, [[0, 0, 2.0, 0]], atol=1e-5)


@pytest.mark.parametrize("name", ["clipped_surrogate", "gspo_token", "cispo", "reinforce", "ppo"])
def test_an_importance_weight_on_the_advantages_is_one_on_the_loss(name):
    weights = policy.truncated_importance(jnp.asarray(OLD), jnp.asarray(NEW) - 0.3, cap=1.5)
    function = getattr(policy, name)
    found = run(function, advantages=ADVANTAGES * np.asarray(weights))[0]
    np.testing.assert_allclose(found, weights * run(function)[0], atol=1e-6)


def test_importance_weights_are_capped_ratios_without_gradient():
    new, old, mask = map(jnp.asarray, (NEW, OLD, MASK))
    found = policy.truncated_importance(new, old, cap=1.2)
    np.testing.assert_allclose(found, np.minimum(np.exp(NEW - OLD), 1.2), rtol=1e-6)
    sequences = policy.truncated_sequence_importance(new, old, mask, cap=1.2)
    np.testing.assert_allclose(sequences, [1.2, np.exp(-0.2)], rtol=1e-6)
    assert not slope(lambda x: jnp.sum(policy.truncated_importance(x, old, cap=9.0)), new).any()
    metrics = policy.drift(new, old, cap=1.2)
    np.testing.assert_allclose(metrics["sampling/sampling_logp_difference/mean"], np.abs(NEW - OLD), rtol=1e-6)
    np.testing.assert_array_equal(metrics["sampling/importance_sampling_ratio/mean"], found)


def test_importance_weights_make_the_mean_over_another_samplers_tokens_the_policys():
    """By enumeration, without the cap; with it, less."""
    rng = np.random.default_rng(0)
    policy_logps, sampler = jax.nn.log_softmax(jnp.asarray(rng.standard_normal((2, 1, 8)), jnp.float32))
    rewards = jnp.asarray(rng.random((1, 8)), jnp.float32)
    over = lambda cap: jnp.sum(jnp.exp(sampler) * policy.truncated_importance(policy_logps, sampler, cap=cap) * rewards)
    true = float(jnp.sum(jnp.exp(policy_logps) * rewards))
    np.testing.assert_allclose(over(1e9), true, rtol=1e-5)
    assert float(over(1.0)) < 0.99 * true


@each_normaliser
def test_a_row_that_takes_no_part_is_as_if_it_were_not_there(normaliser):
    losses = np.array(run(policy.clipped_surrogate)[0])
    dirty = np.where([[False], [True]], np.float32(np.nan), losses)
    without = mean(normaliser(losses[:1], MASK[:1], ROWS[:1]))
    np.testing.assert_allclose(mean(normaliser(dirty, MASK, np.array([1, 0], np.float32))), without, rtol=1e-6)
    assert not np.any(normaliser(dirty, MASK, 0 * ROWS).weights)


@each_normaliser
def test_no_row_sees_another_so_neither_microbatches_nor_devices_change_a_mean(normaliser):
    rng = np.random.default_rng(0)
    losses = rng.standard_normal((6, 5)).astype(np.float32)
    mask = (np.arange(5) < rng.integers(0, 6, (6, 1))).astype(np.float32)
    rows = rng.integers(0, 2, 6).astype(np.float32)
    whole = jax.tree.map(np.asarray, normaliser(losses, mask, rows))
    parts = [normaliser(*(x[start::3] for x in (losses, mask, rows))) for start in range(3)]
    for start, part in enumerate(parts):
        np.testing.assert_array_equal(part.losses, whole.losses[start::3])
        np.testing.assert_array_equal(part.weights, whole.weights[start::3])


@each_normaliser
def test_padding_has_no_part_in_the_loss(normaliser):
    losses = np.array(run(policy.clipped_surrogate)[0])
    dirty = np.where(MASK != 0, losses, np.float32(np.nan))
    np.testing.assert_array_equal(mean(normaliser(dirty, MASK, ROWS)), mean(normaliser(losses, MASK, ROWS)))


def test_a_longer_batch_does_not_change_what_a_length_divides():
    losses = np.array(run(policy.clipped_surrogate)[0])
    wide = [np.pad(x, ((0, 0), (0, 5))) for x in (losses, MASK)]
    found = [mean(NORMALISERS["per_length"](*arrays, ROWS)) for arrays in ((losses, MASK), wide)]
    np.testing.assert_allclose(found, np.sum(losses * MASK) / (2 * 4), rtol=1e-6)


def test_metrics_of_tokens_are_means_over_tokens_under_any_normaliser():
    _, metrics = run(policy.clipped_surrogate)
    found = normalise.metrics_of_tokens(metrics, jnp.asarray(MASK), jnp.array([1.0, 0.0]))["clip_ratio/high_mean"]
    assert np.sum(np.asarray(found.values * found.weights)) / np.sum(np.asarray(found.weights)) == 0.5


@each_normaliser
def test_neither_microbatches_nor_devices_change_a_step(normaliser):
    """Rows have 0 to 5 tokens, two take no part: a mean of the microbatches' means would differ."""
    rng = np.random.default_rng(0)
    mask = (np.arange(5) < np.array([5, 1, 3, 0, 2, 5, 4, 1])[:, None]).astype(np.float32)
    batch = {
        "tokens": rng.integers(0, 4, (8, 5)),
        "old_logps": -rng.uniform(0.5, 2, (8, 5)).astype(np.float32),
        "advantages": rng.standard_normal((8, 5)).astype(np.float32),
        "mask": mask,
        "rows": np.array([1, 1, 0, 1, 1, 0, 1, 1], np.float32),
    }

    def loss(trainable, _, part, __):
        logps = jax.nn.log_softmax(trainable)[part["tokens"]]
        given = {name: part[name] for name in ("old_logps", "advantages")}
        losses, metrics = policy.clipped_surrogate(logps=logps, **given, **CLIPS)
        found = normaliser(losses, part["mask"], part["rows"])
        return *found, normalise.metrics_of_tokens(metrics, part["mask"], part["rows"])

    algo = algorithm.Algorithm(lambda *_: jnp.zeros(4), algorithm.as_it_is, loss)
    tx = optax.sgd(0.1)

    def after(microbatches, given):
        made = step.make(algo, tx, optax.constant_schedule(0.1), microbatches=microbatches)
        start = state.init(jnp.array([0.3, -0.2, 0.1, 0.0]), tx, jax.random.key(0))
        return jax.jit(made)(start, None, given, jnp.float32(np.inf))

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("data")))
    (whole, metrics), *others = after(1, batch), after(4, batch), after(1, spread)
    assert metrics["grad_norm"] > 1e-2
    for other, numbers in others:
        np.testing.assert_allclose(other.trainable, whole.trainable, atol=1e-6)
        for name, value in metrics.items():
            np.testing.assert_allclose(numbers[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
