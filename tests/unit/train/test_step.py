import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.data import batch as batches
from ftjax.data import encode

INF = jnp.float32(jnp.inf)


@pytest.fixture(scope="module")
def reference(sft_case, curve, tiny_batch):
    """The loss curve of the plain case: one microbatch, packed, scanned, nothing recomputed."""
    losses = curve(sft_case(), tiny_batch)
    assert losses[-1] < losses[0] - 0.05, "the case must learn, or equality means nothing"
    return losses


def test_four_microbatches_give_the_curve_of_one(sft_case, curve, tiny_batch, reference):
    """Rows have unequal numbers of supervised tokens, so a mean of means would differ."""
    weights = tiny_batch.weights.sum(axis=1)
    assert len(set(weights.reshape(2, 4).sum(axis=0).tolist())) > 1
    np.testing.assert_allclose(curve(sft_case(microbatches=4), tiny_batch), reference, atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputing_changes_no_number(sft_case, curve, tiny_batch, reference, remat):
    np.testing.assert_allclose(curve(sft_case(remat=remat), tiny_batch), reference, atol=1e-5)


def test_an_unrolled_scan_gives_the_same_curve(sft_case, curve, tiny_batch, reference):
    np.testing.assert_allclose(curve(sft_case(unroll=3), tiny_batch), reference, atol=1e-5)


def test_packed_and_padded_batches_give_the_same_curve(sft_case, curve, tiny_batch, reference):
    examples = []
    for row in range(8):
        for segment in range(1, int(tiny_batch.segments[row].max()) + 1):
            at = tiny_batch.segments[row] == segment
            mask = np.concatenate([[0], tiny_batch.weights[row][at][:-1]]).astype(np.uint8)
            examples.append(encode.Example(tiny_batch.tokens[row][at], mask, "test:1"))
    assert len(examples) > 16
    padded = batches.pad_rows(examples, length=16)
    assert float(padded.weights.sum()) == float(tiny_batch.weights.sum())
    np.testing.assert_allclose(curve(sft_case(), padded), reference, atol=1e-5)


def test_full_fine_tuning_goes_through_the_same_step(sft_case, curve, tiny_batch, reference):
    losses = curve(sft_case(full=True), tiny_batch)
    np.testing.assert_allclose(losses[0], reference[0], atol=1e-6)
    assert losses[-1] < losses[0] - 0.05


def test_the_loss_is_the_token_mean_over_the_whole_batch(sft_case, tiny_batch):
    case = sft_case()
    batch = jax.tree.map(jnp.asarray, tiny_batch)
    values, weights, _ = case.algorithm.loss(case.state.trainable, case.base, batch, None)
    _, metrics = case.step(case.state, case.base, tiny_batch, INF)
    np.testing.assert_allclose(metrics["loss"], (values * weights).sum() / weights.sum(), rtol=1e-6)
    assert float(metrics["weight"]) == float(tiny_batch.weights.sum())


@pytest.mark.parametrize("spoil", ["nan in the batch's weights", "a loss above the limit"])
def test_a_step_that_must_not_count_changes_nothing(sft_case, tiny_batch, spoil):
    case = sft_case()
    bad, limit = tiny_batch, jnp.float32(0.5)
    if "nan" in spoil:
        bad, limit = tiny_batch._replace(weights=tiny_batch.weights * np.float32(np.nan)), INF
    after, metrics = case.step(case.state, case.base, bad, limit)
    assert float(metrics["applied"]) == 0.0
    raw = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(case.state), strict=True):
        np.testing.assert_array_equal(raw(one), raw(other))


def test_gradients_and_moments_are_float32_under_bfloat16_compute(sft_case, tiny_batch, tiny_params):
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), tiny_params)
    case = sft_case(dtype="bfloat16", params=half)
    after, metrics = case.step(case.state, case.base, tiny_batch, INF)
    floats = [x for x in jax.tree.leaves((after.trainable, after.opt_state)) if x.dtype.kind == "f"]
    assert {str(x.dtype) for x in floats} == {"float32"}
    assert np.isfinite(float(metrics["loss"]))


def test_evaluation_sums_what_the_step_averages(sft_case, tiny_batch):
    case = sft_case()
    loss, weight, sums = case.evaluate(case.state.trainable, case.base, tiny_batch)
    _, metrics = case.step(case.state, case.base, tiny_batch, INF)
    np.testing.assert_allclose(loss / weight, metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(sums["entropy"].value / weight, metrics["entropy"], rtol=1e-6)
    assert float(sums["entropy"].weight) == float(weight)


def test_training_never_holds_all_logits(sft_case, tiny_config):
    """32 rows of 256 tokens at a vocabulary of 16,384: [B, T, V] in float32 would be 512 MiB."""
    from ftjax.models import params

    wide = params.init(jax.random.key(0), tiny_config(vocab_size=16384), "float32")
    case = sft_case(vocab_size=16384, params=wide)
    shape = lambda dtype: jax.ShapeDtypeStruct((32, 256), dtype)
    batch = batches.SFTBatch(shape("int32"), shape("int32"), shape("float32"), shape("int32"), shape("int32"))
    program = case.step.lower(case.state, case.base, batch, INF).compile()
    assert program.memory_analysis().temp_size_in_bytes < 32 * 256 * 16384 * 4 / 3


def test_no_gradient_and_no_copy_of_a_frozen_weight_is_kept(sft_case, tiny_config):
    """Wide frozen matrices, few tokens: temporary memory stays below one copy of the base's projections."""
    from ftjax.models import params

    shape = {"d_model": 256, "d_ff": 1024, "head_dim": 64}
    wide = params.init(jax.random.key(0), tiny_config(**shape), "float32")
    case = sft_case(params=wide, **shape)
    tokens = np.ones((1, 8), np.int32)
    small = batches.SFTBatch(tokens, tokens, np.ones((1, 8), np.float32), np.arange(8, dtype=np.int32)[None], tokens)
    program = case.step.lower(case.state, case.base, small, INF).compile()
    projections = sum(w.nbytes for name, w in vars(wide.blocks).items() if name.endswith("_proj"))
    trained = sum(x.nbytes for x in jax.tree.leaves(case.state.trainable))
    assert program.memory_analysis().temp_size_in_bytes < 0.5 * projections + 8 * trained
