"""The table of policies: seeds of a method together, intervals over prompts, gains in spreads of the start."""

import numpy as np
import pytest

from ftjax import comparison


def row(method, rewards, kl=1.0):
    rewards = np.asarray(rewards, np.float64)
    facts = {"reward": float(rewards.mean()), "learned_reward": 0.5, "kl": kl, "perplexity": 2.0, "length": 9.0}
    return {"method": method, "run": method, "rewards": rewards, **facts}


def test_seeds_of_a_method_are_one_entry_with_the_mean_over_them():
    rows = [row("start", [0, 1, 2]), row("ppo", [2, 3, 4], kl=1.0), row("ppo", [4, 5, 6], kl=3.0)]
    start, ppo = comparison.by_method(rows, spread=2.0)
    assert (start["seeds"], ppo["seeds"]) == (1, 2)
    assert ppo["reward"] == 4.0
    assert ppo["reward_of_seeds"] == [3.0, 5.0]
    assert ppo["kl"] == 2.0
    assert ppo["gain_in_std"] == (4.0 - 1.0) / 2.0
    assert start["gain_in_std"] == 0.0


def test_an_interval_holds_the_mean_and_is_that_of_the_normal_distribution_for_many_prompts():
    values = np.random.default_rng(1).normal(3.0, 2.0, 2000)
    low, high = comparison.interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_table_has_a_line_a_method():
    found = comparison.by_method([row("start", [0, 1]), row("best of 16", [2, 2])], spread=1.0)
    lines = comparison.markdown(found, 2).splitlines()
    assert lines[0].startswith("# ")
    assert lines[-1] == "| best of 16 | 1 | 2.00 | 2.00 to 2.00 | +1.50 | 0.50 | 1.00 | 2.00 | 9 |"
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
