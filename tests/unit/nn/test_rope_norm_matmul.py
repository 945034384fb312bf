import jax
import jax.numpy as jnp
import numpy as np

from ftjax.nn import matmul, norm, rope


def plain(**changes):
    fields = {"head_dim": 8, "kind": "default", "theta": 1e4, "factor": 1.0, "low_freq_factor": 1.0}
    fields |= {"high_freq_factor": 1.0, "original_max_position": 0, "length": jnp.int32(1)}
    return rope.frequencies(**(fields | changes))


def test_scores_of_rotated_vectors_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(at_q, at_k):
        turn = lambda x, at: rope.rotate(x, *rope.angles(jnp.full((1, 1), at), plain()))
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


def test_rms_norm_has_unit_mean_square_and_is_computed_in_float32():
    x = 1000 * jax.random.normal(jax.random.key(0), (3, 64))
    y = norm.rms_norm(x, jnp.ones(64), eps=0.0)
    np.testing.assert_allclose(jnp.mean(y**2, axis=-1), 1.0, rtol=1e-6)
    tiny = norm.rms_norm((x / 1e6).astype(jnp.bfloat16), jnp.ones(64), eps=1e-12)
    assert tiny.dtype == jnp.bfloat16
    np.testing.assert_allclose(jnp.mean(tiny.astype(jnp.float32) ** 2, axis=-1), 1.0, rtol=1e-2)


def test_a_linear_layer_computes_in_the_dtype_of_its_input():
    x, w, b = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.float32), jnp.ones(4, jnp.float32)
    y = matmul.linear(x, w, b)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, np.full((2, 4), 4.0))
    np.testing.assert_array_equal(matmul.linear(x, w, None), np.full((2, 4), 3.0))
