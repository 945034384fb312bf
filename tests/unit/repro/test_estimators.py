"""E10's comparison with the exact gradient: it holds for RLOO, and would not for an estimator that is biased."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.rl import groups, kl
from tests import bases

spec = importlib.util.spec_from_file_location("estimators", bases.ROOT / "scripts" / "repro" / "estimators.py")
estimators = importlib.util.module_from_spec(spec)  # a script, which nothing imports
spec.loader.exec_module(estimators)


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


@pytest.mark.parametrize("check", ["whitening", "forms_of_adam", "controllers"])
def test_the_constants_are_those_of_e10(check):
    assert [found.what for found in getattr(estimators, check)() if not found.passed] == []


def test_the_identities_hold_and_k3_is_not_k1():
    assert [found.what for found in estimators.identities(0) if not found.passed] == []
    assert float(jnp.min(kl.k1(jnp.array([[-1.0]]), jnp.array([[0.0]])))) < 0
