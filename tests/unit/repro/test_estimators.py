"""E10's comparison with the exact gradient: it holds for RLOO, and would not for an estimator that is biased."""

import numpy as np

from ftjax.rl import groups
from tests import bases

estimators = bases.script("repro/estimators.py")


def test_the_gradient_of_rloo_is_the_true_one_and_grpos_without_std_a_part_of_it():
    cosine, ratio, apart = estimators.compare(2, 3)
    assert cosine > 0.999
    assert abs(ratio - 1) <= 0.01
    assert apart <= 1e-6


def test_a_biased_estimator_is_told_from_an_unbiased_one(monkeypatch):
    monkeypatch.setattr(groups, "rloo", groups.centred)
    monkeypatch.setattr(estimators, "DRAWS", 20_000)
    _, ratio, apart = estimators.compare(1, 3)  # a length of its own, so a program of its own
    np.testing.assert_allclose(ratio, 0.75, atol=0.02)
    assert apart > 0.1
