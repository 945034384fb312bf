"""The verdict in words with numbers: what was found, who cannot be told apart, what was lost; no more than is sure."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from ftjax.compare import frontier
from ftjax.evals import statistics

Told = Mapping[str, Any]


def verdict(told: Told) -> list[str]:
    """Returns the sentences, most important first: the main metric, those that are alike, the others, who suffices."""
    main = main_of(told)
    said = [_against(main, name, entry, told) for name, entry in main["against"].items()]
    said += _alike(main, told)
    for one in told["metrics"]:
        if one is not main and one["against"]:
            said += _others(one, told["baseline"])
    said += [f"judged by {_judge(one)}: {one['verdict']}" for one in told["judges"]]
    said += [_preferred(one) for one in told["people"]]
    if told["frontier"] and len(main["values"]) > 2:
        said.append(_ranked(main))
    for one in told["frontier"]:
        said += _suffices(one, main)
    if main["rows"] < statistics.FEW:
        said.append(f"all of this rests on {main['rows']} rows; fewer than {statistics.FEW} are rough")
    return said


def main_of(told: Told) -> Told:
    """Returns the metric that the verdict is about."""
    return next(one for one in told["metrics"] if (one["set"], one["field"]) == tuple(told["main"].values()))


def _against(main: Told, name: str, entry: Told, told: Told) -> str:
    base, on = told["baseline"], _on(main)
    if not entry["decided"]:
        return f"{name} against {base} is undecided{on}: {_estimate(main, entry)}"
    if main["unit"] != "%":
        gap = f"{_direction(entry)} than that of {base}{on} by {span(main, entry)}"
        return f"{name}: {main['label']} {gap} ({p(entry)})"
    flips = f"{entry['gained']} rows won, {entry['lost']} lost"
    return f"{name} {_points(main, entry, told)} than {base}{on} ({p(entry)}; {main['rows']} rows, {flips})"


def _on(one: Told) -> str:
    """Returns which rows a metric is of, where they are not all that the systems share."""
    if one["rows"] == one["shared"]:
        return ""
    return f" on the {one['rows']:,} of {one['shared']:,} rows on which all have it"


def _points(main: Told, entry: Told, told: Told) -> str:
    more = "more" if entry["value"] > 0 else "less"
    checks = {one["check"] for one in told["systems"] if one["check"]}
    if main["field"] == "score":
        what = "exactly right" if checks == {"tasks.exact_match"} else "right"
        return f"answers {span(main, entry)} {more} often {what}"
    if main["field"] == "accuracy":
        return f"puts pairs in the right order {span(main, entry)} {more} often"
    return f"has {span(main, entry)} {more} {main['label']}"


def _alike(main: Told, told: Told) -> list[str]:
    """Returns how the others stand to the best of those that are not the baseline."""
    pairs = {(one["a"], one["b"]): one for one in told["pairs"]}
    names = [name for name in main["values"] if name != told["baseline"]]
    if len(names) < 2 or not main["better"]:
        return []
    best = max(names, key=lambda name: main["better"] * main["values"][name]["value"])
    said = []
    for name in names:
        if name == best:
            continue
        entry = pairs[best, name] if (best, name) in pairs else _turned(pairs[name, best])
        size = _size(told["cost"], name, best)
        if not entry["decided"]:
            said.append(f"{name} is not distinguishable from {best}{size}: {_estimate(main, entry)}, undecided")
        elif main["unit"] == "%":
            said.append(f"{name} {_points(main, entry, told)} than {best}{size} ({p(entry)})")
        else:
            said.append(f"{name}: {main['label']} {_direction(entry)} than that of {best}{size} by {span(main, entry)}")
    return said


def _turned(entry: Told) -> dict[str, Any]:
    return {**entry, "value": -entry["value"], "low": -entry["high"], "high": -entry["low"]}


def _size(cost: Mapping[str, Told], name: str, other: str) -> str:
    """Returns how large a system is beside another: " at a third of its size"; nothing where they are alike."""
    for key, what in (("parameters", "size"), ("trainable_parameters", "trained parameters")):
        own, its = cost[name].get(key), cost[other].get(key)
        if own and its and own != its:
            return f" at {_times(own / its)} its {what}"
    return ""


def _times(part: float) -> str:
    known = {"half": 1 / 2, "a third of": 1 / 3, "a quarter of": 1 / 4, "a fifth of": 1 / 5, "a tenth of": 1 / 10}
    near = next((name for name, value in known.items() if abs(part / value - 1) < 0.07), None)
    return near or (f"{part:.2g} times" if part > 0.1 else f"{part:.1%} of")


def _others(one: Told, base: str) -> list[str]:
    """Returns one sentence on a metric: who gained, who lost, who is undecided; of one without a better side, who has
    more and who less."""
    up, down = ("better", "worse") if one["better"] else ("higher", "lower")
    groups: dict[str, list[str]] = {up: [], down: [], "undecided": []}
    for name, entry in one["against"].items():
        good = entry["value"] * (one["better"] or 1) > 0
        kind = "undecided" if not entry["decided"] else up if good else down
        shown = f"{_estimate(one, entry)}" if kind == "undecided" else f"{span(one, entry)}, {p(entry)}"
        groups[kind].append(f"{name} ({shown})")
    parts = [f"{_listed(names, kind)} {kind}" for kind, names in groups.items() if names]
    return [f"{one['label']} on {one['set']} against {base}{_on(one)}: {'; '.join(parts)}"]


def _listed(names: Sequence[str], kind: str) -> str:
    joined = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return joined if kind == "undecided" or len(names) != 2 else f"both {joined}"


def _judge(one: Told) -> str:
    return str(one["judge"].get("model") or one["judge"].get("kind"))


def _preferred(one: Told) -> str:
    rate = one["win_rate"]
    ends = f"{rate['value']:.0%} ({rate['low']:.0%} to {rate['high']:.0%}) of {one['votes']} votes, a tie is half"
    if rate["low"] <= 0.5 <= rate["high"]:
        return f"people do not decide between {one['a']} and {one['b']}: {one['a']} has {ends}, undecided"
    a, b = (one["a"], one["b"]) if rate["value"] > 0.5 else (one["b"], one["a"])
    return f"people prefer {a} to {b}: {one['a']} has {ends}"


def _ranked(main: Told) -> str:
    order = sorted(main["values"].items(), key=lambda one: -main["better"] * one[1]["value"])
    shown = [f"{name} {value(main, one['value'])}" for name, one in order]
    return f"ranked by {main['label']}: {', '.join(shown)}"


def _suffices(one: Told, main: Told) -> list[str]:
    price, said = PRICES[one["price"]], []
    alike = f", which count as alike up to {frontier.APART} times" if one["price"].endswith("_seconds") else ""
    if len(one["front"]) < len(one["points"]):
        said.append(f"on the front of quality against {price}{alike}: {', '.join(one['front'])}")
    if one["bar"] is None:
        return said
    end = f"{value(main, one['bar'])} with the {'lower' if main['better'] > 0 else 'upper'} end of its interval"
    if one["smallest"] is None:
        return [*said, f"no system meets {end}"]
    also = f" (not told apart from it: {', '.join(one['as_small'])})" if one["as_small"] else ""
    return [*said, f"the one with the least {price} that meets {end}: {one['smallest']}{also}"]


PRICES = {
    "parameters": "parameters",
    "trainable_parameters": "trained parameters",
    "train_seconds": "seconds of training",
    "answer_seconds": "seconds an answer",
}


def _direction(entry: Told) -> str:
    return "higher" if entry["value"] > 0 else "lower"


def value(one: Told, number: float) -> str:
    """Returns a value of a metric: a share in per cent, else three digits with its unit."""
    if one["unit"] == "%":
        return f"{number:.1%}"
    return f"{number:.3g}{' ' + one['unit'] if one['unit'] else ''}"


def span(one: Told, entry: Told) -> str:
    """Returns the ends of a decided difference without their sign: "14 to 21 points"."""
    low, high = sorted((abs(entry["low"]), abs(entry["high"])))
    if one["unit"] == "%":
        digits = 0 if round(100 * low) and round(100 * low) != round(100 * high) else 1
        return f"{100 * low:.{digits}f} to {100 * high:.{digits}f} points"
    return f"{low:.3g} to {high:.3g}{' ' + one['unit'] if one['unit'] else ''}"


def signed(one: Told, entry: Told) -> str:
    """Returns a difference with its interval and signs: "+3.5 (-1.0 to 8.0)", shares in points."""
    scale = 100 if one["unit"] == "%" else 1
    form = (lambda x: f"{x:.1f}") if one["unit"] == "%" else (lambda x: f"{x:.3g}")
    ends = [form(scale * entry[end]) if math.isfinite(entry[end]) else "unknown" for end in ("low", "high")]
    sign = "+" if entry["value"] > 0 else ""
    return f"{sign}{form(scale * entry['value'])} ({ends[0]} to {ends[1]})"


def _estimate(one: Told, entry: Told) -> str:
    unit = "points" if one["unit"] == "%" else one["unit"]
    number, _, ends = signed(one, entry).partition(" ")
    return f"{number}{' ' + unit if unit else ''} {ends[:-1]}; {p(entry)})"


def p(entry: Told) -> str:
    """Returns the corrected p as it stands in a sentence."""
    return "p < .001" if entry["p_corrected"] < 0.001 else f"p = {entry['p_corrected']:.2g}".replace("0.", ".", 1)
