"""The rules of E7 and E8 on what frontier.py measured, with the tables and the plots (Rafailov et al. 2023, fig. 2)."""

from collections.abc import Mapping, Sequence
import itertools
import math
from pathlib import Path
import statistics
from typing import Any

import numpy as np

from ftjax.runs import plots
from scripts.repro.check import Check, table
from scripts.repro.ranks import spread

Seeds = Sequence[Mapping[str, Any]]
SLACK = 0.01  # above the frontier, for what sums in float64 of float32 logits may be off
ADAPTIVE = ("adaptive, paper", "adaptive, code")


def e7(found: Seeds, settings: Mapping[str, Any], folder: Path) -> str:
    """Returns the policies and the checks of E7 for every arm, and draws reward against KL of the first seed."""
    parts = []
    for size in settings["batches"]:
        draw_frontier(found, settings, size, folder / f"frontier_{size}.png")
        parts.append(f"{size} pairs a step\n\n{policies_table(found, settings, size)}\n")
        parts.append(table(e7_checks(found, settings, size)) + "\n")
    return "".join(parts)


def e8(found: Seeds, settings: Mapping[str, Any], folder: Path) -> str:
    """Returns the judges and the checks of E8 for every arm, and draws the reliability of the first seed."""
    parts = []
    for size in settings["batches"]:
        draw_reliability(found, settings, size, folder / f"reliability_{size}.png")
        parts.append(f"{size} pairs a step\n\n{judges_table(found, settings, size)}\n")
        parts.append(table(e8_checks(found, settings, size)) + "\n")
    return "".join(parts)


def points(found: Seeds, size: int, method: str) -> list[list[Mapping[str, Any]]]:
    """Returns the points of a method at each seed, in the order of beta."""
    listed = [seed["arms"][str(size)]["points"] for seed in found]
    return [sorted((p for p in each if p["method"] == method), key=lambda p: p["beta"]) for each in listed]


def at(found: Seeds, size: int, method: str, beta: float) -> list[Mapping[str, Any]]:
    """Returns the point of a method and a beta at each seed."""
    return [p for each in points(found, size, method) for p in each if p["beta"] == beta]


def share(entry: Mapping[str, Any]) -> float:
    """Returns the true reward of a policy as a part of the frontier's at its KL."""
    return entry["gold"] / entry["frontier"]


def policies_table(found: Seeds, settings: Mapping[str, Any], size: int) -> str:
    """Returns KL and true reward of every policy, mean and standard deviation over seeds."""
    lines = [
        "| policy | beta | KL | true reward | of the frontier at its KL | RM's exact tilt there |",
        "|---" * 6 + "|",
    ]
    listed = [("DPO", beta) for beta in settings["dpo"]["betas"]]
    listed += [(name, beta) for name in ("PPO-RM", "PPO-GT") for beta in settings["ppo"]["betas"]]
    listed += [(name, settings["adaptive"]["start"]) for name in ADAPTIVE]
    for name, beta in listed:
        entries = at(found, size, name, beta)
        cells = [
            spread([p["kl"] for p in entries], 2),
            spread([p["gold"] for p in entries], 3),
            f"{statistics.fmean(map(share, entries)):.1%}",
            f"{statistics.fmean(p['proxy'] for p in entries):.3f}",
        ]
        lines.append(f"| {name} | {beta:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def by_beta(values: Mapping[float, Sequence[float]], seeds: int) -> str:
    """Returns mean and standard deviation by beta, with the number of seeds where it is not all of them."""
    some = lambda each: "" if len(each) == seeds else f" (n {len(each)})"
    return ", ".join(f"{beta:g}: {spread(each, 3)}{some(each)}" for beta, each in values.items()) or "none"


def e7_checks(found: Seeds, settings: Mapping[str, Any], size: int) -> list[Check]:
    """Returns the checks of E7 on an arm."""
    betas, seeds = settings["ppo"]["betas"], len(found)
    every = [p for seed in found for p in seed["arms"][str(size)]["points"]]
    above = max(every, key=lambda p: p["gold"] - p["frontier"])
    excess, which = above["gold"] - above["frontier"], f"{above['method']}, beta {above['beta']:g}"
    shown = f"{excess:+.4f} ({which}, the highest of {len(every)})"
    checks = [Check("any policy, less the frontier at its KL", "at most +.01", shown, excess <= SLACK)]

    shares = {beta: [share(p) for p in at(found, size, "PPO-GT", beta)] for beta in betas}
    good = min(map(statistics.fmean, shares.values())) >= 0.9
    checks.append(Check("PPO-GT, of the frontier at its KL, by beta", "at least .90", by_beta(shares, seeds), good))

    near = {beta: [p for p in at(found, size, "PPO-RM", beta) if p["kl"] < 5] for beta in betas}
    off = {beta: [p["gold"] - p["proxy"] for p in each] for beta, each in near.items() if each}
    good = bool(off) and max(statistics.fmean(map(abs, gaps)) for gaps in off.values()) <= 0.1
    what = "PPO-RM less RM's exact tilt, KL < 5, by beta"
    checks.append(Check(what, "within .10 in the mean size", by_beta(off, seeds), good))

    ahead = lead(found, settings, size)
    good = bool(ahead) and min(map(statistics.fmean, ahead.values())) >= -0.1
    checks.append(Check("DPO less PPO-RM at equal KL, by beta", "at least -.10", by_beta(ahead, seeds), good))

    falls = [all(a["kl"] > b["kl"] for a, b in itertools.pairwise(each)) for each in points(found, size, "DPO")]
    shown = f"in {sum(falls)} of {seeds}"
    checks.append(Check("DPO's KL falls strictly in beta", "in every seed", shown, all(falls)))

    target = settings["adaptive"]["target"]
    for name in ADAPTIVE:
        nats = [p["kl"] for (p,) in points(found, size, name)]
        error = statistics.fmean(abs(x / target - 1) for x in nats)
        shown = f"{error:.3f} (KL {spread(nats, 2)})"
        checks.append(Check(f"{name}: size of KL / target - 1", "at most .2", shown, error <= 0.2))
    worst = max(seed["ratio_error"] for seed in found)
    checks.append(Check("PPO's ratio before the first update less 1", "below 1e-5", f"{worst:.1e}", worst < 1e-5))
    return checks


def lead(found: Seeds, settings: Mapping[str, Any], size: int) -> dict[float, list[float]]:
    """Returns DPO's true reward less PPO-RM's at the same KL, a number a seed whose PPO-RM reaches this KL.

    PPO-RM is interpolated between its points and the reference in sqrt(KL), in which the curves are nearly straight.
    """
    gaps: dict[float, list[float]] = {beta: [] for beta in settings["dpo"]["betas"]}
    for dpo, ppo in zip(points(found, size, "DPO"), points(found, size, "PPO-RM"), strict=True):
        line = sorted([(0.0, 0.0), *((math.sqrt(p["kl"]), p["gold"]) for p in ppo)])
        x, y = zip(*line, strict=True)
        for p in dpo:
            if math.sqrt(p["kl"]) <= x[-1]:
                gaps[p["beta"]].append(float(p["gold"] - np.interp(math.sqrt(p["kl"]), x, y)))
    return {beta: each for beta, each in gaps.items() if each}


def judged(found: Seeds, size: int, key: str) -> dict[str, list[float]]:
    """Returns a number of every judge, by name: the reward model and DPO's implicit rewards."""
    listed = [seed["arms"][str(size)]["judges"] for seed in found]
    return {name: [each[name][key] for each in listed] for name in listed[0]}


def judges_table(found: Seeds, settings: Mapping[str, Any], size: int) -> str:
    """Returns accuracy and calibration of every judge, mean and standard deviation over seeds."""
    names = ("judge", "accuracy", "in training", "on DPO's pairs", "ECE", "temperature", "ECE after")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    keys = (("accuracy", 3), ("train_accuracy", 3), ("shifted", 3), ("ece", 3), ("temperature", 2), ("ece_fitted", 3))
    columns = {key: (judged(found, size, key), digits) for key, digits in keys}
    for name in ("RM", *(f"DPO {beta:g}" for beta in settings["dpo"]["betas"])):
        cells = [spread(values[name], digits) for values, digits in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def e8_checks(found: Seeds, settings: Mapping[str, Any], size: int) -> list[Check]:
    """Returns the checks of E8 on an arm."""
    accuracy, mean = judged(found, size, "accuracy"), statistics.fmean
    gap = mean(accuracy["DPO 0.1"]) - mean(accuracy["RM"])
    shown = f"{gap:+.4f} ({spread(accuracy['DPO 0.1'])}, {spread(accuracy['RM'])})"
    checks = [Check("accuracy, DPO at beta .1 less RM", "within .03", shown, abs(gap) <= 0.03)]
    low, high = accuracy["DPO 0.05"], accuracy["DPO 5"]
    shown = f"{spread(low)}, {spread(high)}"
    checks.append(Check("accuracy at beta .05 and at 5", "the first not lower", shown, mean(low) >= mean(high)))
    bayes = [seed["bayes"] for seed in found]
    error = [math.sqrt(b * (1 - b) / settings["pairs"]["heldout"]) for b in bayes]
    over = max(a - b - 2 * e for each in accuracy.values() for a, b, e in zip(each, bayes, error, strict=True))
    shown = f"highest {over:+.4f} (Bayes {spread(bayes)})"
    checks.append(Check("accuracy less Bayes and 2 SE, any judge and seed", "at most 0", shown, over <= 0))
    after = judged(found, size, "ece_fitted")
    worst = max(after, key=lambda name: mean(after[name]))
    shown = f"worst {worst}: {spread(after[worst])}"
    checks.append(
        Check("ECE after a fitted temperature, every judge", "at most .03", shown, mean(after[worst]) <= 0.03)
    )
    shifted, best = judged(found, size, "shifted"), [seed["arms"][str(size)]["shifted_bayes"] for seed in found]
    shown = f"{spread(shifted['DPO 0.1'])}, {spread(shifted['RM'])} (Bayes {spread(best)})"
    checks.append(Check("accuracy on pairs of DPO at beta .1: it, RM", "RM ahead on token LMs", shown, None))
    return checks


def draw_frontier(found: Seeds, settings: Mapping[str, Any], size: int, path: Path) -> None:
    """Draws true reward against KL: the exact curves of the first seed, and every policy of it."""
    first = found[0]
    exact = {"exact frontier": first["frontier"], "exact tilts by the RM": first["arms"][str(size)]["proxy"]}
    shown = [plots.Curve(label, *zip(*line, strict=True), True) for label, line in exact.items()]
    for method in ("DPO", "PPO-RM", "PPO-GT"):
        (entries,) = points(found[:1], size, method)
        shown.append(plots.Curve(method, [p["kl"] for p in entries], [p["gold"] for p in entries], False))
    title = f"True reward against KL, {size} pairs a step, seed {settings['seeds'][0]}"
    plots.curves(shown, path, title=title, across="KL to the reference, nats", unit="true reward, sd of the reference")


def draw_reliability(found: Seeds, settings: Mapping[str, Any], size: int, path: Path) -> None:
    """Draws accuracy over confidence on the held-out pairs of the first seed, before and after the temperature."""
    models = {}
    for name in ("RM", "DPO 0.1"):
        entry = found[0]["arms"][str(size)]["judges"][name]
        models |= {name: entry["bins"], f"{name}, temperature {entry['temperature']:.1f}": entry["bins_fitted"]}
    title = f"Preferences held out, {size} pairs a step, seed {settings['seeds'][0]}"
    plots.reliability(models, path, title=title)
