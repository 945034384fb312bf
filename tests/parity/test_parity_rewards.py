"""Live against TRL: its reward functions run as they are, and DAPO's punishment is its own."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.rl import endings
from ftjax.rl.rewards import Sample, Scorer, Term

with warnings.catch_warnings():  # while importing only: warnings are errors here, and PyTorch packages give some
    warnings.simplefilter("ignore")
    import trl.rewards

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def test_a_reward_function_of_trl_is_called_as_it_is_and_its_overlong_punishment_is_ours():
    lengths = np.arange(130)
    theirs = trl.rewards.get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    given = [Sample("p", "c", True, int(n), {"completion_ids": [1] * int(n)}) for n in lengths]
    with Scorer([Term("theirs", theirs, 1.0)], timeout=1.0, workers=1) as scorer:
        found = scorer(given)
    assert found.valid.all()
    assert np.ptp(found.scores) == 1.0
    ours = endings.soft_overlong(jnp.asarray(lengths), longest=100, buffer=20)
    np.testing.assert_allclose(ours, found.scores, atol=1e-7)
