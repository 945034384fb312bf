"""The rules of E9 on what overoptimised.py measured, with its table and plot (Gao, Schulman and Hilton 2022)."""

from collections.abc import Mapping, Sequence
import math
from pathlib import Path
import statistics
from typing import Any

import numpy as np

from ftjax.runs import plots
from scripts.repro.check import Check, table
from scripts.repro.ranks import spread

Seeds = Sequence[Mapping[str, Any]]
SHOWN = 64  # the n of best-of-n in the table, and the largest to which the KL's rule is held


def e9(found: Seeds, settings: Mapping[str, Any], folder: Path) -> str:
    """Returns the curves in numbers and the checks of E9, and draws true reward and proxy of the first seed."""
    draw(found, settings, folder / "overoptimised.png")
    return f"{curves_table(found, settings)}\n{table(checks(found, settings))}"


def along(seed: Mapping[str, Any], count: int, key: str) -> np.ndarray:
    """Returns a number of all tilts of a reward model, in the order of falling beta."""
    return np.array([entry[key] for entry in seed["arms"][str(count)]["tilts"]])


def at_top(seed: Mapping[str, Any], count: int, key: str) -> float:
    """Returns a number of the tilt of the highest true reward."""
    return float(along(seed, count, key)[along(seed, count, "gold").argmax()])


def drop(seed: Mapping[str, Any], count: int) -> float:
    """Returns how far the true reward at the end lies below its highest, in deviations of the reference."""
    gold = along(seed, count, "gold")
    return float(gold.max() - gold[-1])


def fit(seed: Mapping[str, Any], count: int, *, log: bool) -> tuple[float, float, float]:
    """Returns a, b and R^2 of the true reward as d (a - b d), or d (a - b log d), with d = sqrt(KL); least squares."""
    nats, gold = along(seed, count, "kl"), along(seed, count, "gold")
    d = np.sqrt(nats)
    columns = np.stack([d, -d * (np.log(d) if log else d)], axis=1)
    (a, b), *_ = np.linalg.lstsq(columns, gold)
    left = np.sum((gold - columns @ [a, b]) ** 2) / np.sum((gold - gold.mean()) ** 2)
    return float(a), float(b), float(1 - left)


def curves_table(found: Seeds, settings: Mapping[str, Any]) -> str:
    """Returns a line for each number of pairs: the highest true reward, the last one, best of 64 and both fits."""
    names = ("pairs", "highest true reward", "at KL", "at the end", "at KL", f"best of {SHOWN}", "b", "R²", "R², log d")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for count in settings["counts"]:
        top = {key: [at_top(seed, count, key) for seed in found] for key in ("gold", "kl")}
        last = {key: [float(along(seed, count, key)[-1]) for seed in found] for key in ("gold", "kl")}
        best = [next(e["gold"] for e in seed["arms"][str(count)]["best"] if e["n"] == SHOWN) for seed in found]
        plain, logs = zip(*((fit(seed, count, log=False), fit(seed, count, log=True)) for seed in found), strict=True)
        cells = [spread(numbers, 2) for ends in (top, last) for numbers in ends.values()] + [spread(best, 2)]
        cells += [spread(numbers, 3) for numbers in ([b for _, b, _ in plain], [r for *_, r in plain])]
        lines.append(f"| {count:,} | {' | '.join([*cells, spread([r for *_, r in logs], 3)])} |")
    return "\n".join(lines) + "\n"


def checks(found: Seeds, settings: Mapping[str, Any]) -> list[Check]:
    """Returns the checks of E9."""
    counts = settings["counts"]
    few, many, fewer = counts[0], counts[-1], counts[-2]
    drops = {count: [drop(seed, count) for seed in found] for count in (few, many)}
    listed = lambda numbers: ", ".join(f"{x:.2f}" for x in numbers)
    enough = sum(x >= 0.5 for x in drops[few])
    need = math.ceil(2 / 3 * len(found))
    made = [
        Check(f"{few:,} pairs: fall of the true reward", ".5 in 2 of 3 seeds", listed(drops[few]), enough >= need),
        Check(f"{many:,} pairs", "at most .1", listed(drops[many]), statistics.fmean(drops[many]) <= 0.1),
    ]
    steps = min(float(np.diff(along(seed, count, "proxy")).min()) for seed in found for count in counts)
    rises = all((np.diff(along(seed, count, "kl")) >= -1e-9).all() for seed in found for count in counts)
    shown = f"least step {steps:.1e}"
    made.append(Check("proxy as the KL rises, any number of pairs", "never falls", shown, rises and steps >= -1e-9))
    falls = {count: [fit(seed, count, log=False)[1] for seed in found] for count in (few, fewer)}
    shown = f"{spread(falls[few], 3)}, {spread(falls[fewer], 3)}"
    good = statistics.fmean(falls[few]) > statistics.fmean(falls[fewer])
    made.append(Check(f"b of {few:,} and of {fewer:,} pairs", "the first larger", shown, good))
    every = [e for seed in found for arm in seed["arms"].values() for e in arm["best"] if e["n"] <= SHOWN]
    gaps = [e["formula"] - e["kl"] for e in every]
    good = min(gaps) >= -1e-9 and max(gaps) <= 0.01  # 1e-9 for what sums of 46,656 numbers may be off
    shown = f"{min(gaps):.1e} to {max(gaps):.1e}"
    made.append(Check(f"KL of best-of-n, formula less exact, n to {SHOWN}", "in [0, .01]", shown, good))
    rare = [seed["rare"] for seed in found]
    made.append(Check("chance of what few pairs do not show", ".3 to .7%", spread([100 * x for x in rare], 2), None))
    return made


def draw(found: Seeds, settings: Mapping[str, Any], path: Path) -> None:
    """Draws the true reward against KL for every number of pairs, best-of-n as points, of the first seed."""
    counts, shown = settings["counts"], []
    for count in counts:
        name = f"{count:,} pairs"
        shown.append(plots.Curve(name, along(found[0], count, "kl"), along(found[0], count, "gold"), True))
    for count in (counts[0], counts[-1]):
        entries = found[0]["arms"][str(count)]["best"]
        x, y = [e["kl"] for e in entries], [e["gold"] for e in entries]
        shown.append(plots.Curve(f"best of n, {count:,} pairs", x, y, False))
    title = f"True reward of optima of reward models, seed {settings['seeds'][0]}"
    plots.curves(shown, path, title=title, across="KL to the reference, nats", unit="true reward, sd of the reference")
