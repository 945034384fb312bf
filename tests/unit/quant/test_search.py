"""Clipping groups lowers their error, in every format, and changes nothing where there is nothing to gain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.quant import convert


def errors(weight, name):
    few = convert.Few(name, convert.group_of(name, 0))
    dense = [convert.matrix(weight, few._replace(search=on), where="w").dequantize(jnp.float32) for on in (False, True)]
    return [float(jnp.mean((one - weight) ** 2)) for one in dense]


@pytest.mark.parametrize("name", [name for name in convert.formats() if convert.module(name).GROUP])
def test_it_lowers_the_error_of_normal_weights(name):
    plain, searched = errors(jax.random.normal(jax.random.key(0), (256, 64)), name)
    assert searched < 0.99 * plain


@pytest.mark.parametrize("name", convert.formats())
def test_it_never_raises_the_error_and_leaves_zeros_alone(name):
    weight = jax.random.t(jax.random.key(1), 3.0, (256, 64)).at[::3].set(0.0).at[:, 2].set(0.0)
    plain, searched = errors(weight, name)
    assert searched <= plain * (1.001 if name == "nf4-dq" else 1.0)  # its scales are rounded after the search
    few = convert.Few(name, convert.group_of(name, 0), search=True)
    np.testing.assert_array_equal(convert.matrix(weight, few, where="w").dequantize(jnp.float32)[weight == 0], 0.0)


def test_where_the_levels_hold_the_weight_it_changes_no_bit():
    plain = convert.matrix(jax.random.normal(jax.random.key(2), (128, 32)), convert.Few("int8", 0), where="w")
    weight = plain.dequantize(jnp.float32)
    again = convert.matrix(weight, convert.Few("int8", 0, search=True), where="w")
    np.testing.assert_array_equal(again.codes, plain.codes)
