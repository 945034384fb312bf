"""Completions that do not end."""

import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.rl import endings

SCORES = jnp.array([0.5, -2.0, 3.0])
ENDED = jnp.array([True, False, False])
TOKENS = jnp.array([[5, 9, 9, 4], [9, 5, 4, 9], [4, 5, 6, 7], [9, 9, 9, 9]])
WEIGHTS = jnp.array([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])


def cut(stops, start=0):
    weights, ended = endings.truncate(TOKENS, WEIGHTS, jnp.array(stops), start=start)
    return weights.astype(int).tolist(), ended.tolist()


def test_a_penalty_is_taken_from_rows_that_did_not_end():
    np.testing.assert_allclose(endings.penalty(SCORES, ENDED, value=1.0), [0.5, -3.0, 2.0])


def test_a_replacement_takes_the_place_of_any_score_of_rows_that_did_not_end():
    odd = SCORES.at[1].set(jnp.nan)
    np.testing.assert_allclose(endings.replace(odd, ENDED, value=-1.0), [0.5, -1.0, -1.0])


def test_a_completion_is_cut_after_its_first_stop_token_which_stays():
    assert cut([9]) == (
        [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]],
        [True, True, False, True],
    )


def test_any_of_several_stop_tokens_ends_a_row():
    assert cut([4, 6])[0] == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert cut([4, 6])[1] == [True, True, True, False]


def test_a_stop_token_in_the_padding_ends_nothing():
    assert cut([7]) == (WEIGHTS.astype(int).tolist(), [False] * 4)


def test_stop_tokens_before_the_start_do_not_count():
    """As in lm-human-preferences: the first one at or after `start`."""
    assert cut([9], start=2) == (
        [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]],
        [True, True, False, False],
    )


def test_openais_form_cuts_at_the_period_at_or_after_position_16():
    tokens = np.full((2, 24), 7)
    tokens[:, [3, 15, 16, 20]] = 13
    tokens[1, 16] = 7
    weights, ended = endings.truncate(jnp.asarray(tokens), jnp.ones((2, 24)), jnp.array([13]), start=16)
    assert weights.sum(axis=1).tolist() == [17, 21]
    assert ended.all()


def test_the_overlong_punishment_is_dapos():
    """Equation 13 with the paper's numbers: 16,384 tokens, and a buffer of 4,096 more."""
    lengths = np.array([1, 16384, 16385, 18432, 20479, 20480, 30000])
    wanted = [0.0, 0.0, -1 / 4096, -0.5, -4095 / 4096, -1.0, -1.0]
    np.testing.assert_allclose(endings.soft_overlong(jnp.asarray(lengths), longest=20480, buffer=4096), wanted)


@pytest.mark.parametrize("buffer", [0, 21])
def test_a_buffer_that_does_not_fit_is_refused(buffer):
    with pytest.raises(ValueError, match="it must be 1 to longest, 20"):
        endings.soft_overlong(jnp.array([3]), longest=20, buffer=buffer)
