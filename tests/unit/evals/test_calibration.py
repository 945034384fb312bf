import numpy as np
import pytest
from scipy import optimize

from ftjax.evals import calibration


def drawn(temperature, pairs=100_000, seed=0):
    """Margins of a model whose logits are `temperature` times too large for its accuracy."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(pairs) * 2
    sign = np.where(rng.random(pairs) < 1 / (1 + np.exp(-logits)), 1, -1)
    return logits * sign * temperature


def error(margins):
    return calibration.expected_error(calibration.reliability(margins, bins=10))


def test_a_model_that_says_what_is_true_has_no_calibration_error_and_the_temperature_one():
    margins = drawn(1.0)
    assert error(margins) < 0.005
    np.testing.assert_allclose(calibration.temperature(margins), 1.0, rtol=0.02)


@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_the_temperature_of_other_pairs_mends_a_model_that_is_too_sure_or_not_sure_enough(scale):
    margins = drawn(scale)
    assert error(margins) > 0.1
    fitted = calibration.temperature(drawn(scale, seed=1))
    np.testing.assert_allclose(fitted, scale, rtol=0.03)
    assert error(margins / fitted) < 0.01


def test_bins_hold_every_pair_once_with_means_of_their_own():
    logit = lambda p: np.log(p / (1 - p))
    margins = np.array([logit(0.52), -logit(0.54), logit(0.97), 0.0, 50.0])
    found = calibration.reliability(margins, bins=5)
    assert [b.pairs for b in found] == [3, 0, 0, 0, 2]
    np.testing.assert_allclose(found[0][:2], [0.52, 0.5])
    np.testing.assert_allclose(found[4][:2], [0.985, 1.0])
    assert found[1] == calibration.Bin(0.0, 0.0, 0)
    np.testing.assert_allclose(calibration.expected_error(found), (3 * 0.02 + 2 * 0.015) / 5)


def test_the_error_of_a_constant_confidence_is_its_distance_from_the_accuracy():
    margins = np.where(np.arange(100) < 60, 1.0, -1.0) * np.log(9)
    np.testing.assert_allclose(error(margins), 0.3)


def test_a_temperature_without_a_minimum_is_a_bound():
    assert calibration.temperature(np.array([1.0, 2.0])) == pytest.approx(1e-3)
    assert calibration.temperature(np.array([-1.0, -2.0])) == pytest.approx(1e3)


def test_bins_of_equal_mass_hold_as_many_pairs_each_and_ties_stay_together():
    margins = drawn(1.0, pairs=1000)
    assert [b.pairs for b in calibration.equal_mass(margins, bins=8)] == [125] * 8
    logit = lambda p: np.log(p / (1 - p))
    margins = np.array([logit(0.6), -logit(0.6), logit(0.6), logit(0.7), -logit(0.8), logit(0.9)])
    found = calibration.equal_mass(margins, bins=3)
    assert [b.pairs for b in found] == [4, 2]
    np.testing.assert_allclose([b.confidence for b in found], [0.625, 0.85])
    np.testing.assert_allclose([b.accuracy for b in found], [0.75, 0.5])
    np.testing.assert_allclose(calibration.expected_error(found), (4 * 0.125 + 2 * 0.35) / 6)


@pytest.mark.parametrize("bins", [1, 2, 50])
def test_equal_mass_takes_few_pairs_and_pairs_that_are_all_alike(bins):
    (only,) = calibration.equal_mass(np.array([2.0, 2.0, -2.0]), bins=bins)
    np.testing.assert_allclose(only, (1 / (1 + np.exp(-2.0)), 2 / 3, 3))
    assert sum(b.pairs for b in calibration.equal_mass(np.array([0.3, -1.2, 4.0]), bins=bins)) == 3
    assert calibration.equal_mass(np.array([]), bins=bins) == []


def test_a_perfect_model_has_the_error_that_chance_gives():
    found = [calibration.equal_mass(drawn(1.0, pairs=500, seed=seed), bins=10) for seed in range(200)]
    by_chance = np.mean([calibration.chance_error(bins) for bins in found])
    np.testing.assert_allclose(np.mean([calibration.expected_error(bins) for bins in found]), by_chance, rtol=0.05)


def test_the_temperature_is_the_maximum_of_the_likelihood():
    margins = drawn(2.5, pairs=300)
    loss = lambda t: np.mean(np.logaddexp(0, -margins / t))
    best = optimize.minimize_scalar(loss, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9}).x
    np.testing.assert_allclose(calibration.temperature(margins), best, rtol=1e-5)
