"""The rules of E7 and E8 on what frontier.py measured, with the tables and the plots (Rafailov et al. 2023, fig. 2)."""

from collections.abc import Callable, Mapping, Sequence
import itertools
import math
from pathlib import Path
import statistics
from typing import Any

import numpy as np

from ftjax.runs import plots
from scripts.repro.check import Check, table
from scripts.repro.frontier import of
from scripts.repro.ranks import spread

Seeds = Sequence[Mapping[str, Any]]
SLACK = 0.01  # above the frontier, for what sums in float64 of float32 logits may be off
ADAPTIVE = ("adaptive, paper", "adaptive, code")
E7_NAME, E8_NAME = "frontier.png", "reliability.png"


def e7(found: Seeds, settings: Mapping[str, Any], folder: Path) -> str:
    """Returns the table of the policies and the checks of E7, and draws reward against KL of the first seed."""
    draw_frontier(found, folder / E7_NAME)
    return f"{policies_table(found, settings)}\n{table(e7_checks(found, settings))}"


def e8(found: Seeds, settings: Mapping[str, Any], folder: Path) -> str:
    """Returns the table of the judges and the checks of E8, and draws the reliability of the first seed."""
    draw_reliability(found[0], settings, folder / E8_NAME)
    return f"{judges_table(found, settings)}\n{table(e8_checks(found, settings))}"


def values(found: Seeds, number: Callable[[Mapping[str, Any]], float], key: str, **wanted: Any) -> list[float]:
    """Returns a number of the one point or judge of each seed that has these values."""
    return [number(entry) for (entry,) in of(found, key, **wanted)]


def methods(settings: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Returns (method, beta) of every policy."""
    listed = [("DPO", beta) for beta in settings["dpo"]["betas"]]
    listed += [(name, beta) for name in ("PPO-RM", "PPO-GT") for beta in settings["ppo"]["betas"]]
    return [*listed, *((name, settings["adaptive"]["start"]) for name in ADAPTIVE)]


def policies_table(found: Seeds, settings: Mapping[str, Any]) -> str:
    """Returns KL and true reward of every policy, mean and standard deviation over seeds."""
    lines = [
        "| policy | beta | KL | true reward | of the frontier at its KL | RM's exact tilt there |",
        "|---" * 6 + "|",
    ]
    for name, beta in methods(settings):
        of_it = lambda number, name=name, beta=beta: values(found, number, "points", method=name, beta=beta)
        cells = [
            spread(of_it(lambda p: p["kl"]), 2),
            spread(of_it(lambda p: p["gold"]), 3),
            f"{statistics.fmean(of_it(share)):.1%}",
            f"{statistics.fmean(of_it(lambda p: p['proxy'])):.3f}",
        ]
        lines.append(f"| {name} | {beta:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def share(entry: Mapping[str, Any]) -> float:
    """Returns the true reward of a policy as a part of the frontier's at its KL."""
    return entry["gold"] / entry["frontier"]


def e7_checks(found: Seeds, settings: Mapping[str, Any]) -> list[Check]:
    """Returns the checks of E7."""
    every = [entry for seed in found for entry in seed["points"]]
    above = max(every, key=lambda p: p["gold"] - p["frontier"])
    excess, which = above["gold"] - above["frontier"], f"{above['method']}, beta {above['beta']:g}"
    shown = f"{excess:+.4f} ({which}, the highest of {len(every)})"
    checks = [Check("any policy, less the frontier at its KL", "at most +.01", shown, excess <= SLACK)]

    betas = settings["ppo"]["betas"]
    by_beta = {beta: statistics.fmean(values(found, share, "points", method="PPO-GT", beta=beta)) for beta in betas}
    least = min(share(entry) for seed in of(found, "points", method="PPO-GT") for entry in seed)
    shown = ", ".join(f"{beta:g}: {mean:.3f}" for beta, mean in by_beta.items()) + f"; least of all {least:.3f}"
    checks.append(Check("PPO-GT, of the frontier at its KL", "at least .90", shown, min(by_beta.values()) >= 0.9))

    off = {}
    for beta in betas:
        near = [p for (p,) in of(found, "points", method="PPO-RM", beta=beta) if p["kl"] < 5]
        if near:
            off[beta] = [p["gold"] - p["proxy"] for p in near]
    shown = ", ".join(f"{beta:g}: {spread(gaps, 3)} (n {len(gaps)})" for beta, gaps in off.items()) or "no KL below 5"
    good = bool(off) and max(statistics.fmean(map(abs, gaps)) for gaps in off.values()) <= 0.1
    checks.append(Check("PPO-RM less RM's exact tilt, KL < 5", "within .10 in the mean size", shown, good))

    ahead = lead(found, settings)
    shown = (
        ", ".join(f"{beta:g}: {spread(gaps, 3)} (n {len(gaps)})" for beta, gaps in ahead.items()) or "no KL in common"
    )
    good = bool(ahead) and min(statistics.fmean(gaps) for gaps in ahead.values()) >= -0.1
    checks.append(Check("DPO less PPO-RM at equal KL, by beta", "at least -.10", shown, good))

    each = [[p["kl"] for p in sorted(seed, key=lambda p: p["beta"])] for seed in of(found, "points", method="DPO")]
    falls = [all(a > b for a, b in itertools.pairwise(nats)) for nats in each]
    checks.append(
        Check("DPO's KL falls strictly in beta", "in every seed", f"in {sum(falls)} of {len(falls)}", all(falls))
    )

    target = settings["adaptive"]["target"]
    for name in ADAPTIVE:
        nats = values(found, lambda p: p["kl"], "points", method=name)
        error = statistics.fmean(abs(x / target - 1) for x in nats)
        shown = f"{error:.3f} (KL {spread(nats, 2)})"
        checks.append(Check(f"{name}: size of KL / target - 1", "at most .2", shown, error <= 0.2))
    worst = max(seed["ratio_error"] for seed in found)
    checks.append(Check("PPO's ratio before the first update less 1", "below 1e-5", f"{worst:.1e}", worst < 1e-5))
    return checks


def lead(found: Seeds, settings: Mapping[str, Any]) -> dict[float, list[float]]:
    """Returns DPO's true reward less PPO-RM's at the same KL, a number a seed whose PPO-RM reaches this KL.

    PPO-RM is interpolated between its points and the reference in sqrt(KL), in which the curves are nearly straight.
    """
    gaps: dict[float, list[float]] = {beta: [] for beta in settings["dpo"]["betas"]}
    for dpo, ppo in zip(of(found, "points", method="DPO"), of(found, "points", method="PPO-RM"), strict=True):
        line = sorted([(0.0, 0.0), *((math.sqrt(p["kl"]), p["gold"]) for p in ppo)])
        x, y = zip(*line, strict=True)
        for p in dpo:
            if math.sqrt(p["kl"]) <= x[-1]:
                gaps[p["beta"]].append(float(p["gold"] - np.interp(math.sqrt(p["kl"]), x, y)))
    return {beta: of_beta for beta, of_beta in gaps.items() if of_beta}


def judges(settings: Mapping[str, Any]) -> list[str]:
    """Returns the names of the reward model and of DPO's implicit rewards."""
    return ["RM", *(f"DPO {beta:g}" for beta in settings["dpo"]["betas"])]


def judges_table(found: Seeds, settings: Mapping[str, Any]) -> str:
    """Returns accuracy and calibration of every judge, mean and standard deviation over seeds."""
    names = ("pairs a step", "judge", "accuracy", "on its own pairs", "ECE", "temperature", "ECE after")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for size, name in itertools.product(settings["batches"], judges(settings)):
        get = lambda key, name=name, size=size: values(found, lambda j: j[key], "judges", name=name, size=size)
        cells = [spread(get("accuracy"), 3), f"{statistics.fmean(get('train_accuracy')):.3f}", spread(get("ece"), 3)]
        cells += [f"{statistics.fmean(get('temperature')):.2f}", spread(get("ece_fitted"), 3)]
        lines.append(f"| {size} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def e8_checks(found: Seeds, settings: Mapping[str, Any]) -> list[Check]:
    """Returns the checks of E8: of the first batch size, the others are reported."""
    checks = []
    for size in settings["batches"]:
        binds = size == settings["batches"][0]
        label = "" if binds else f"{size} pairs a step: "
        checks += [
            c._replace(what=label + c.what, passed=c.passed if binds else None) for c in _e8(found, settings, size)
        ]
    return checks


def _e8(found: Seeds, settings: Mapping[str, Any], size: int) -> list[Check]:
    get = lambda name, key: values(found, lambda j: j[key], "judges", name=name, size=size)
    accuracy = {name: get(name, "accuracy") for name in judges(settings)}
    gap = statistics.fmean(accuracy["DPO 0.1"]) - statistics.fmean(accuracy["RM"])
    shown = f"{gap:+.4f} ({spread(accuracy['DPO 0.1'])}, {spread(accuracy['RM'])})"
    checks = [Check("accuracy, DPO at beta .1 less RM", "within .03", shown, abs(gap) <= 0.03)]
    low, high = accuracy["DPO 0.05"], accuracy["DPO 5"]
    good = statistics.fmean(low) >= statistics.fmean(high)
    checks.append(Check("accuracy at beta .05 and at 5", "the first not lower", f"{spread(low)}, {spread(high)}", good))
    bayes = [seed["bayes"] for seed in found]
    error = [math.sqrt(b * (1 - b) / settings["pairs"]["heldout"]) for b in bayes]
    over = max(a - b - 2 * e for each in accuracy.values() for a, b, e in zip(each, bayes, error, strict=True))
    shown = f"highest {over:+.4f} (Bayes {spread(bayes)})"
    checks.append(Check("accuracy less Bayes and 2 SE, any judge and seed", "at most 0", shown, over <= 0))
    after = {name: get(name, "ece_fitted") for name in accuracy}
    worst = max(after, key=lambda name: statistics.fmean(after[name]))
    good = statistics.fmean(after[worst]) <= 0.03
    checks.append(
        Check(
            "ECE after a fitted temperature, every judge", "at most .03", f"worst {worst}: {spread(after[worst])}", good
        )
    )
    for name in ("RM", "DPO 0.1"):
        checks.append(Check(f"ECE before, {name}", "", spread(get(name, "ece")), None))
    return checks


def draw_frontier(found: Seeds, path: Path) -> None:
    """Draws true reward against KL: the exact curves of the first seed, and every policy of it."""
    first = found[0]
    lines = {"frontier": "exact frontier", "proxy": "exact tilts by the RM"}
    shown = [plots.Curve(label, *zip(*first["curves"][name], strict=True), True) for name, label in lines.items()]
    for method in ("DPO", "PPO-RM", "PPO-GT"):
        (entries,) = of([first], "points", method=method)
        shown.append(plots.Curve(method, [p["kl"] for p in entries], [p["gold"] for p in entries], False))
    title = "True reward against KL, seed 0"
    plots.curves(shown, path, title=title, across="KL to the reference, nats", unit="sd of the reference's reward")


def draw_reliability(seed: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    """Draws accuracy over confidence on held-out pairs, before and after the temperature."""
    models = {}
    for name in ("RM", "DPO 0.1"):
        ((entry,),) = of([seed], "judges", name=name, size=settings["batches"][0])
        models |= {name: entry["bins"], f"{name}, temperature {entry['temperature']:.1f}": entry["bins_fitted"]}
    plots.reliability(models, path, title="Preferences held out, seed 0")
