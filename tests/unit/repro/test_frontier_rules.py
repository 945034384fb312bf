"""The rules of E7 and E8 on numbers that were made up: each can fail."""

import math
import runpy

import pytest

from ftjax import config as configs
from tests import bases


@pytest.fixture(scope="module")
def rules():
    return runpy.run_path(str(bases.ROOT / "scripts" / "repro" / "frontier_rules.py"))


@pytest.fixture(scope="module")
def settings():
    return configs.load(str(bases.ROOT / "configs" / "repro" / "frontier.py")).to_dict()


def seed(settings, **changes):
    """A seed that keeps every rule: gold = sqrt(KL) .9, KL = .5 / beta; `changes` are by (method, beta) or name."""
    betas = {"DPO": settings["dpo"]["betas"], "PPO-RM": settings["ppo"]["betas"], "PPO-GT": settings["ppo"]["betas"]}
    points = []
    for method, each in betas.items():
        for beta in each:
            nats = 0.5 / beta
            part = 0.95 if method == "PPO-GT" else 0.9
            points.append({"method": method, "beta": beta, "kl": nats, "gold": part * nats**0.5, "frontier": nats**0.5})
    for name in ("adaptive, paper", "adaptive, code"):
        points.append({"method": name, "beta": 0.3, "kl": 2.1, "gold": 1.0, "frontier": 2.1**0.5})
    for point in points:
        point["proxy"] = point["gold"] + 0.05
        point.update(changes.get("points", {}).get((point["method"], point["beta"]), {}))
    accuracy = {"RM": 0.75, "DPO 0.05": 0.78, "DPO 0.1": 0.77, "DPO 0.5": 0.76, "DPO 1": 0.75, "DPO 5": 0.74}
    plain = {"ece": 0.1, "ece_fitted": 0.02, "temperature": 2.0, "train_accuracy": 0.9, "shifted": 0.7}
    judges = {
        name: plain | {"accuracy": share} | changes.get("judges", {}).get(name, {}) for name, share in accuracy.items()
    }
    arm = {"points": points, "judges": judges, "shifted_bayes": 0.8}
    return {"arms": {"256": arm}, "bayes": 0.82, "ratio_error": changes.get("ratio_error", 1e-7)}


def failed(rules, settings, **changes):
    """The rules that fail where one of three seeds is changed."""
    found = [seed(settings), seed(settings), seed(settings, **changes)]
    checks = [*rules["e7_checks"](found, settings, 256), *rules["e8_checks"](found, settings, 256)]
    return [check.what for check in checks if check.passed is False]


def test_numbers_that_keep_every_rule_pass(rules, settings):
    assert failed(rules, settings) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"points": {("DPO", 5.0): {"gold": 0.35}}}, "any policy, less the frontier"),
        ({"points": {("PPO-GT", 0.3): {"gold": 0.5}}}, "PPO-GT, of the frontier"),
        ({"points": {("PPO-RM", 0.6): {"proxy": 2.0}}}, "PPO-RM less RM's exact tilt"),
        ({"points": {("DPO", 1.0): {"gold": -1.0}}}, "DPO less PPO-RM"),
        ({"points": {("DPO", 0.5): {"kl": 0.3}}}, "DPO's KL falls strictly"),
        ({"points": {("adaptive, paper", 0.3): {"kl": 4.0}}}, "adaptive, paper"),
        ({"points": {("adaptive, code", 0.3): {"kl": 0.2}}}, "adaptive, code"),
        ({"ratio_error": 1e-3}, "PPO's ratio before the first update"),
        ({"judges": {"DPO 0.1": {"accuracy": 0.5}}}, "accuracy, DPO at beta .1 less RM"),
        ({"judges": {"DPO 0.05": {"accuracy": 0.5}}}, "accuracy at beta .05 and at 5"),
        ({"judges": {"DPO 1": {"accuracy": 0.84}}}, "accuracy less Bayes and 2 SE"),
        ({"judges": {"RM": {"ece_fitted": 0.06}}}, "ECE after a fitted temperature"),
    ],
)
def test_a_number_out_of_bounds_fails_its_rule_alone(rules, settings, changes, rule):
    (found,) = failed(rules, settings, **changes)
    assert found.startswith(rule)


def test_the_tables_have_a_line_for_every_policy_and_judge(rules, settings):
    found = [seed(settings), seed(settings)]
    assert len(rules["policies_table"](found, settings, 256).splitlines()) == 2 + 5 + 4 + 4 + 2
    assert len(rules["judges_table"](found, settings, 256).splitlines()) == 2 + 6


def test_dpo_is_compared_with_ppo_at_its_own_kl_and_not_past_the_last_point(rules, settings):
    """On curves that are straight in sqrt(KL) the lead is the difference of slopes; DPO at .05 has the KL 10."""
    points = {("DPO", beta): {"gold": math.sqrt(0.5 / beta)} for beta in settings["dpo"]["betas"]}
    points[("PPO-RM", 0.03)] = {"kl": 5.5, "gold": 0.9 * math.sqrt(5.5)}
    gaps = rules["lead"]([seed(settings, points=points)], settings, 256)
    assert sorted(gaps) == [0.1, 0.5, 1.0, 5.0]
    for beta, (gap,) in gaps.items():
        assert gap == pytest.approx(0.1 * math.sqrt(0.5 / beta))
