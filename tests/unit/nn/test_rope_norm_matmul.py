import jax
import jax.numpy as jnp
import numpy as np

from ftjax.nn import matmul, norm, rope


def plain(**changes):
    fields = {"dim": 8, "kind": "default", "theta": 1e4, "factor": 1.0, "low_freq_factor": 1.0}
    fields |= {"high_freq_factor": 1.0, "original_max_position": 0, "length": jnp.int32(1)}
    fields |= {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, "short_factors": (), "long_factors": ()}
    return rope.frequencies(**(fields | changes))


def test_scores_of_rotated_vectors_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(at_q, at_k):
        turn = lambda x, at: rope.rotate(x, *rope.angles(jnp.full((1, 1), at), plain(), factor=1.0))
        return jnp.sum(turn(q, at_q) * turn(k, at_k))

    np.testing.assert_allclose(score(7, 3), score(107, 103), atol=1e-4)
    assert abs(float(score(7, 3) - score(7, 4))) > 1e-3


def test_linear_scaling_divides_positions_and_dynamic_scaling_starts_beyond_the_context():
    np.testing.assert_allclose(plain(kind="linear", factor=4.0), plain() / 4)
    short = plain(kind="dynamic", factor=2.0, original_max_position=64, length=jnp.int32(64))
    np.testing.assert_allclose(short, plain(), rtol=1e-6)
    long = plain(kind="dynamic", factor=2.0, original_max_position=64, length=jnp.int32(128))
    theta = 1e4 * (2.0 * 128 / 64 - 1) ** (8 / 6)
    np.testing.assert_allclose(long, plain(theta=theta), rtol=1e-5)


def test_llama3_scaling_keeps_short_wavelengths_and_divides_long_ones():
    scaled = plain(kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=1024)
    ratio = np.asarray(scaled / plain())
    np.testing.assert_allclose(ratio[0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratio[-1], 1 / 8, rtol=1e-6)


def test_yarn_keeps_pairs_that_turn_often_in_the_context_and_divides_those_that_turn_rarely():
    """In a context of 1024 the first of 32 pairs turns 163 times, the last 0.02 times."""
    scaled = plain(kind="yarn", dim=64, factor=8.0, original_max_position=1024)
    ratio = np.asarray(scaled / plain(dim=64))
    assert (np.diff(ratio) <= 1e-6).all()
    np.testing.assert_allclose(ratio[0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratio[-1], 1 / 8, rtol=1e-6)
    turns = 1024 * np.asarray(plain(dim=64)) / (2 * np.pi)
    np.testing.assert_allclose(ratio[turns > 33], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratio[turns < 0.75], 1 / 8, rtol=1e-6)


def test_longrope_takes_its_long_factors_once_the_context_is_exceeded():
    made = lambda length: plain(
        kind="longrope", original_max_position=64, short_factors=(1.0,) * 4, long_factors=(1.0, 2.0, 4.0, 8.0),
        length=jnp.int32(length),
    )  # fmt: skip
    np.testing.assert_allclose(made(64), plain(), rtol=1e-6)
    np.testing.assert_allclose(plain() / made(65), [1.0, 2.0, 4.0, 8.0], rtol=1e-6)


def test_features_beyond_the_rotary_ones_and_all_of_a_rope_of_none_stay_as_they_are():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 10))
    at = jnp.arange(3)[None] + 5
    y = rope.rotate(x, *rope.angles(at, plain(), factor=1.0))
    np.testing.assert_array_equal(y[..., 8:], x[..., 8:])
    np.testing.assert_array_equal(y[..., :8], rope.rotate(x[..., :8], *rope.angles(at, plain(), factor=1.0)))
    np.testing.assert_array_equal(rope.rotate(x, *rope.angles(at, plain(kind="none"), factor=1.0)), x)


def test_rms_norm_has_unit_mean_square_and_is_computed_in_float32():
    x = 1000 * jax.random.normal(jax.random.key(0), (3, 64))
    y = norm.rms_norm(x, jnp.ones(64), eps=0.0, offset=0.0)
    np.testing.assert_allclose(jnp.mean(y**2, axis=-1), 1.0, rtol=1e-6)
    tiny = norm.rms_norm((x / 1e6).astype(jnp.bfloat16), jnp.ones(64), eps=1e-12, offset=0.0)
    assert tiny.dtype == jnp.bfloat16
    np.testing.assert_allclose(jnp.mean(tiny.astype(jnp.float32) ** 2, axis=-1), 1.0, rtol=1e-2)


def test_a_norm_with_an_offset_counts_its_weights_from_there():
    x, weight = jax.random.normal(jax.random.key(0), (2, 3, 16))[0], jnp.linspace(-0.5, 0.5, 16)
    counted = norm.rms_norm(x, weight, eps=1e-6, offset=1.0)
    np.testing.assert_allclose(counted, norm.rms_norm(x, 1 + weight, eps=1e-6, offset=0.0), rtol=1e-6)


def test_a_linear_layer_computes_in_the_dtype_of_its_input():
    x, w, b = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.float32), jnp.ones(4, jnp.float32)
    y = matmul.linear(x, w, b)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, np.full((2, 4), 4.0))
    np.testing.assert_array_equal(matmul.linear(x, w, None), np.full((2, 4), 3.0))
