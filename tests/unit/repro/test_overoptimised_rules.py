"""The world of E9, and its rules on numbers that were made up: each can fail."""

import math
import runpy

import numpy as np
import pytest

from ftjax import config as configs
from tests import bases

REPRO = bases.ROOT / "scripts" / "repro"


@pytest.fixture(scope="module")
def rules():
    return runpy.run_path(str(REPRO / "overoptimised_rules.py"))


@pytest.fixture(scope="module")
def settings():
    return configs.load(str(bases.ROOT / "configs" / "repro" / "overoptimised.py")).to_dict()


def arm(settings, b, **changes):
    """A reward model whose true reward is d (2 - b d) to a KL of 9, and of which the formula for best-of-n is exact."""
    nats = np.linspace(0.01, 9, 50)
    tilts = [{"kl": x, "gold": 2 * x**0.5 - b * x, "proxy": x**0.5 + changes.get("bent", 0.0) * x**2} for x in nats]
    formula = lambda n: math.log(n) - (n - 1) / n
    best = [
        {"n": n, "formula": formula(n), "kl": formula(n) + changes.get("apart", 0.0), "gold": 1.0, "proxy": 1.0}
        for n in settings["best_of"]
    ]
    return {"tilts": tilts, "best": best}


def failed(rules, settings, **changes):
    """The rules that fail where 2 of 3 seeds are changed: `changes` are by the number of pairs."""
    of = {count: 0.1 for count in settings["counts"]} | {settings["counts"][0]: 0.6}

    def seed(by):
        given = {count: {"b": b} | by.get(f"of_{count}", {}) for count, b in of.items()}
        return {"rare": 0.005, "arms": {str(count): arm(settings, **each) for count, each in given.items()}}

    found = [seed({}), seed(changes), seed(changes)]
    return [check.what for check in rules["checks"](found, settings) if check.passed is False], found


def test_numbers_that_keep_every_rule_pass(rules, settings):
    assert failed(rules, settings)[0] == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"of_100": {"b": 0.35}}, "100 pairs: fall of the true reward"),
        ({"of_50000": {"b": 0.5}}, "50,000 pairs"),
        ({"of_300": {"bent": -0.05}}, "proxy as the KL rises"),
        ({"of_10000": {"b": 0.9}}, "b of 100 and of 10,000 pairs"),
        ({"of_1000": {"apart": -0.02}}, "KL of best-of-n"),
        ({"of_1000": {"apart": 1e-4}}, "KL of best-of-n"),
    ],
)
def test_a_number_out_of_bounds_fails_its_rule_alone(rules, settings, changes, rule):
    (found,), _ = failed(rules, settings, **changes)
    assert found.startswith(rule)


def test_a_fit_finds_what_the_curve_was_made_of(rules, settings):
    _, found = failed(rules, settings)
    a, b, share = rules["fit"](found[0], 100, log=False)
    np.testing.assert_allclose([a, b, share], [2.0, 0.6, 1.0], rtol=1e-9)
    assert rules["fit"](found[0], 100, log=True)[2] < 0.999
    highest, last = 2.0**2 / 4 / 0.6, 2 * 3 - 0.6 * 9
    np.testing.assert_allclose(rules["drop"](found[0], 100), highest - last, atol=1e-3)


def test_the_table_has_a_line_for_every_number_of_pairs(rules, settings):
    _, found = failed(rules, settings)
    assert len(rules["curves_table"](found, settings).splitlines()) == 2 + len(settings["counts"])


def test_the_reference_rarely_gives_what_the_true_reward_takes_off(settings):
    made, space = (runpy.run_path(str(REPRO / name)) for name in ("overoptimised.py", "enumerable.py"))
    space = space["space"](4, 4)
    reference = made["shy"](space, 0, settings)
    many = (space.responses == 0).sum(axis=1)
    np.testing.assert_allclose(np.exp(reference)[many > 2].sum(), 0.005, rtol=1e-6)
    gold = made["rewards"](space, reference, np.random.default_rng(0), settings["gold"] | {"unary": 0.0})
    by_count = [gold[many == count] for count in range(5)]
    assert all(np.ptp(each) < 1e-12 for each in by_count)
    steps = np.diff([each[0] for each in by_count])
    np.testing.assert_allclose(steps / steps[0], [1, 1, -1.6, -1.6], rtol=1e-9)
