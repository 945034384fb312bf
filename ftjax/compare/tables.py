"""The tables of a comparison, as (head, rows) of texts: the page and the Markdown show the same ones."""

from collections.abc import Mapping, Sequence
import json
from typing import Any

from ftjax.compare import words

Told = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]

_COSTS = {
    "parameters": "parameters",
    "trainable_parameters": "trained",
    "num_tokens": "tokens read",
    "train_seconds": "seconds",
    "devices": "on",
    "peak_bytes": "peak memory",
    "saved_bytes": "on disk",
    "answer_tokens": "tokens an answer",
    "answer_seconds": "seconds an answer",
}
_SHOWN = 60  # characters of a config value


def metrics(told: Told) -> Table:
    """Returns every metric of every system with its interval, its difference to the baseline and the corrected p."""
    rows = []
    for one in told["metrics"]:
        unit = f" ({one['unit']})" if one["unit"] not in ("", "%") else ""
        what = f"{one['label']}{unit}, {one['set']}"
        for number, (name, alone) in enumerate(one["values"].items()):
            ends = " to ".join(_bare(one, alone[end]) for end in ("low", "high"))
            row = ["" if number else what, name, f"{_bare(one, alone['value'])} ({ends})"]
            entry = one["against"].get(name)
            if entry is None:
                rows.append([*row, "", "", "", f"{one['rows']:,}"])
                continue
            flips = f"+{entry['gained']} -{entry['lost']}" if "gained" in entry else ""
            rows.append(
                [*row, words.signed(one, entry), f"{words.p(entry)}{_mark(one, entry)}", flips, f"{one['rows']:,}"]
            )
    return ["metric", "run", "value", f"difference to {told['baseline']}", "corrected p", "won, lost", "rows"], rows


def _bare(one: Told, number: float) -> str:
    return f"{number:.1%}" if one["unit"] == "%" else f"{number:.4g}"


def _mark(one: Told, entry: Told) -> str:
    if not entry["decided"]:
        return ", undecided"
    return "" if not one["better"] else ", better" if entry["value"] * one["better"] > 0 else ", worse"


def slices(told: Told) -> Table:
    """Returns the differences to the baseline on parts of the rows."""
    one = words.main_of(told)
    names = list(one["against"])
    rows, last = [], ""
    for part in told["slices"]:
        cells = [
            f"{words.signed(one, part['against'][name])}{'*' if part['against'][name]['decided'] else ''}"
            for name in names
        ]
        by = "" if part["by"] == last else part["by"]
        rows.append([by, part["name"], f"{part['rows']:,}", _bare(one, part["baseline"]), *cells])
        last = part["by"]
    return ["by", "part", "rows", told["baseline"], *names], rows


def costs(told: Told) -> Table:
    """Returns what each system cost, as far as it is known."""
    known = [key for key in _COSTS if any(key in cost for cost in told["cost"].values())]
    rows = [[name, *(_cost(key, cost.get(key)) for key in known)] for name, cost in told["cost"].items()]
    return ["run", *(_COSTS[key] for key in known)], rows


def _cost(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key == "devices":
        names = {name.partition(":")[2] or name: count for name, count in value.items()}  # "gpu:NVIDIA H100 80GB HBM3"
        return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in names.items())
    if key.endswith("_bytes") and value < 1e5:
        return f"{value / 1e3:.3g} kB" if value else "0"
    if key.endswith("_bytes"):
        return f"{value / 1e9:.2f} GB" if value >= 1e8 else f"{value / 1e6:.2f} MB"
    return number(value)


def number(value: float) -> str:
    """Returns a count with commas, or another number by three digits."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def judges(told: Told) -> Table:
    """Returns what each judge said of which two, and how far it may be believed."""
    rows = []
    for one in told["judges"]:
        place, human = one.get("position") or {}, one.get("human") or {}
        rows.append(
            [
                one["judge"].get("model") or one["judge"].get("kind", ""),
                one["data"]["a"],
                one["data"]["b"],
                _rate(one["win_rate"]),
                f"{one['judged']:,} of {one['pairs']:,}",
                _rate(place.get("flip_rate")),
                _rate(human.get("agreement_with_majority")),
                one["verdict"],
            ]
        )
    head = ["judge", "a", "b", "a wins", "judged", "changes when swapped", "agrees with people", "verdict"]
    return head, rows


def _rate(share: Mapping[str, Any] | None) -> str:
    return "" if not share else f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def people(told: Told) -> Table:
    """Returns whom people preferred."""
    rows = []
    for one in told["people"]:
        rate = one["win_rate"]
        winner = one["a"] if rate["value"] > 0.5 else one["b"]
        sure = not rate["low"] <= 0.5 <= rate["high"]
        counts = [f"{one[name]:,}" for name in ("votes", "prompts", "raters")]
        without = f"{one['choices']['tie']} and {one['choices']['both_bad']}"
        alpha = "" if one["alpha"] is None else f"{one['alpha']:.2f}"
        said = f"{winner} is preferred" if sure else "undecided"
        rows.append([one["a"], one["b"], _rate(rate), said, *counts, without, alpha])
    head = ["a", "b", "a is preferred", "", "votes", "prompts", "raters", "ties and both bad", "alpha of raters"]
    return head, rows


def configs(told: Told) -> Table:
    """Returns the keys of the configs that differ."""
    names = list(dict.fromkeys(name for values in told["configs"].values() for name in values))
    shown = lambda values, name: _short(values[name]) if name in values else ""
    return ["key", *names], [[key, *(shown(values, name) for name in names)] for key, values in told["configs"].items()]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def data(told: Told) -> Table:
    """Returns what each run was trained on."""
    rows = []
    for one in told["data"]:
        files = one["files"] or [{"path": path} for path in one["paths"]]
        for place, file in enumerate(files):
            whole = [f"{one[key]:,}" if place == 0 and one[key] is not None else "" for key in ("rows", "tokens")]
            rows.append(
                [one["name"] if place == 0 else "", str(file["path"]), str(file.get("hash", one["hash"]))[:12], *whole]
            )
    return ["run", "file", "version", "rows", "tokens"], rows


def markdown(table: Table) -> Sequence[str]:
    """Returns the lines of a table in Markdown."""
    head, rows = table
    cell = lambda text: text.replace("|", "\\|").replace("\n", " ")
    line = lambda cells: f"| {' | '.join(map(cell, cells))} |"
    return [line(head), f"|{'---|' * len(head)}", *map(line, rows)]
