"""The runs of a sweep as one table and one picture, read from their folders alone.

Runs that differ in nothing but the seed are one line of the table by mean and standard deviation.
"""

from collections.abc import Mapping, Sequence
import csv
import hashlib
import io
import json
import math
from pathlib import Path
import re
import statistics
from typing import Any, NamedTuple

from ftjax.runs import atomic, plots

SEED = "seed"
_LABEL = 40  # characters
_NAME = 251  # bytes: a file system takes 255, of which ".log" beside the folder needs four
MEASURES = {  # of a summary: path in it, and the head of the column
    "before.eval_loss": "loss before",
    "after.eval_loss": "loss after",
    "before.eval_score": "score before",
    "after.eval_score": "score after",
    "before.eval_reward": "reward before",
    "after.eval_reward": "reward after",
    "after.eval_rewards/accuracies": "pairs right",
    "after.eval_rewards/margins": "margin",
    "after.eval_sampled_kl": "KL",
    "before.eval_retention_perplexity": "retention before",
    "after.eval_retention_perplexity": "retention after",
    "trainable_share": "trainable",
    "train_seconds": "seconds",
}


class Row(NamedTuple):
    """One run: what it changed, how it ended, and its numbers by their path in summary.json."""

    name: str
    changes: dict[str, Any]
    status: str  # done | failed | missing
    numbers: dict[str, float]
    note: str = ""  # why it failed, in one line


class Group(NamedTuple):
    """Runs that are equal but for the seed."""

    changes: dict[str, Any]
    rows: list[Row]

    @property
    def label(self) -> str:
        """Returns what tells the group from others."""
        return " ".join(f"{key}={value}" for key, value in _short(self.changes).items()) or "all"

    def values(self, name: str) -> list[float]:
        """Returns the numbers of the runs that have one of this name."""
        return [row.numbers[name] for row in self.rows if name in row.numbers]

    def mean(self, name: str) -> float:
        """Returns their mean; NaN where there are none."""
        values = self.values(name)
        return statistics.fmean(values) if values else math.nan


def read(folder: Path, name: str, changes: Mapping[str, Any]) -> Row:
    """Returns the row of the run in `folder/name`."""
    path = folder / name
    if (path / "DONE").exists():
        return Row(name, dict(changes), "done", _numbers(json.loads((path / "summary.json").read_text("utf-8"))))
    if (path / "FAILED").exists():
        lines = (path / "FAILED").read_text("utf-8").strip().splitlines()
        return Row(name, dict(changes), "failed", {}, lines[-1])
    return Row(name, dict(changes), "missing", {})


def group(rows: Sequence[Row]) -> list[Group]:
    """Returns the groups in the order of their first runs."""
    found: dict[str, Group] = {}
    for row in rows:
        changes = {key: value for key, value in row.changes.items() if key != SEED}
        found.setdefault(json.dumps(changes, sort_keys=True, default=str), Group(changes, [])).rows.append(row)
    return list(found.values())


def markdown(rows: Sequence[Row]) -> str:
    """Returns the table by groups, mean and standard deviation over seeds, and the runs that did not come to an end."""
    shown = [name for name in MEASURES if any(name in row.numbers for row in rows)]
    head = ["run", "seeds", *(MEASURES[name] for name in shown)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for entry in group(rows):
        done = sum(row.status == "done" for row in entry.rows)
        seeds = f"{done}" if done == len(entry.rows) else f"{done} of {len(entry.rows)}"
        lines.append(f"| {' | '.join([entry.label, seeds, *(_cell(entry.values(name), name) for name in shown)])} |")
    rest = [f"- {row.name}: {row.status}{f', {row.note}' if row.note else ''}" for row in rows if row.status != "done"]
    return "\n".join([*lines, *([""] if rest else []), *rest]) + "\n"


def write(folder: Path, rows: Sequence[Row], *, metric: str) -> None:
    """Writes table.md, table.csv and table.json, and plot.png where a run has the metric."""
    atomic.write_text(folder / "table.md", markdown(rows))
    atomic.write_text(folder / "table.csv", _csv(rows))
    atomic.write_json(folder / "table.json", atomic.strict([row._asdict() for row in rows]))
    if any(metric in row.numbers for row in rows):
        draw(rows, folder / "plot.png", metric=metric)


def draw(rows: Sequence[Row], path: Path, *, metric: str) -> None:
    """Draws a metric over the number that the sweep varies most, a line for each of the rest; else a dot a run."""
    groups = [entry for entry in group(rows) if entry.values(metric)]
    axis = varied(groups)
    drawn, (axes,) = plots.figure(1)
    if axis is None:
        for place, entry in enumerate(groups):
            values = entry.values(metric)
            axes.plot(values, [place] * len(values), "o", color=plots.BLUE, alpha=0.5)
            axes.plot([entry.mean(metric)], [place], "|", color=plots.ORANGE, markersize=16, markeredgewidth=2)
        axes.set_yticks(range(len(groups)), [_end(entry.label) for entry in groups])
        axes.invert_yaxis()
        plots.label(axes, f"{metric}, a dot a seed", metric, "")
    else:
        _lines(axes, groups, axis, metric)
        plots.label(axes, f"{metric} by {axis}", axis, metric)
    plots.save(drawn, path)


def varied(groups: Sequence[Group]) -> str | None:
    """Returns the key whose numbers vary most between the groups; None where no number varies."""
    keys = {key for entry in groups for key in entry.changes}
    values = {key: {entry.changes.get(key) for entry in groups} for key in sorted(keys)}
    numeric = {key: found for key, found in values.items() if all(_is_number(value) for value in found)}
    best = max(numeric, key=lambda key: len(numeric[key]), default=None)
    return best if best is not None and len(numeric[best]) > 1 else None


def _lines(axes: Any, groups: Sequence[Group], axis: str, metric: str) -> None:
    lines: dict[str, list[Group]] = {}
    for entry in groups:
        rest = entry._replace(changes={key: value for key, value in entry.changes.items() if key != axis})
        lines.setdefault(rest.label, []).append(entry)
    for (label, entries), color in zip(lines.items(), plots.colors(len(lines)), strict=True):
        entries = sorted(entries, key=lambda entry: entry.changes[axis])
        at = [entry.changes[axis] for entry in entries]
        axes.plot(at, [entry.mean(metric) for entry in entries], marker="o", markersize=4, color=color, label=label)
        for x, entry in zip(at, entries, strict=True):
            axes.plot([x] * len(entry.values(metric)), entry.values(metric), ".", color=color, alpha=0.5)
    places = [entry.changes[axis] for entry in groups]
    if min(places) > 0 and max(places) >= 4 * min(places):
        axes.set_xscale("log")
    _cut(axes, [(entry.changes[axis], entry.mean(metric)) for entry in groups])
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _end(label: str) -> str:
    """Returns the end of a label, where paths differ, as long as a picture has room for."""
    return label if len(label) <= _LABEL else f"…{label[-_LABEL:]}"


def _cut(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    """Ends the axis above the better half where a few runs diverged, and marks these at the top."""
    finite = sorted(y for _, y in points if math.isfinite(y))
    if not finite:
        return
    low, middle = finite[0], statistics.median(finite)
    top = middle + 2 * (middle - low)
    above = [x for x, y in points if not y <= top]
    if above and finite[-1] - low > 5 * (top - low):
        axes.set_ylim(low - 0.1 * (top - low), top)
        foot = axes.get_xaxis_transform()
        axes.plot(above, [0.98] * len(above), "^", color="#b3261e", transform=foot, label="above the picture")


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    known = {"NaN", "Infinity", "-Infinity"}  # how strict JSON holds what it has no number for
    found: dict[str, float] = {}
    for key, value in summary.items():
        if isinstance(value, dict):
            found |= {f"{key}.{name}": number for name, number in _numbers(value).items()}
        elif _is_number(value) or (isinstance(value, str) and value in known):
            found[key] = float(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the changes under the last part of their names, where that is enough to tell them apart."""
    tails = [key.rpartition(".")[2] for key in changes]
    return {tail if tails.count(tail) == 1 else key: changes[key] for tail, key in zip(tails, changes, strict=True)}


def name_of(changes: Mapping[str, Any]) -> str:
    """Returns the name of a run's folder: `rank=4+learning_rate=0.005+seed=0`; a long one ends in a hash."""
    whole = "+".join(f"{key}={value}" for key, value in _short(changes).items()) or "base"
    name = re.sub(r"[^\w.=+-]+", "-", whole)
    return name if len(name.encode()) <= _NAME else marked(name, changes)


def marked(name: str, changes: Mapping[str, Any]) -> str:
    """Returns a name that ends in a hash of the changes: for one that is too long, or that another run has already."""
    mark = "+" + hashlib.sha256(json.dumps(changes, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return name.encode()[: _NAME - len(mark)].decode(errors="ignore") + mark


def _cell(values: Sequence[float], name: str) -> str:
    if not values:
        return ""
    show = "{:.2%}".format if name == "trainable_share" else "{:.4g}".format
    spread = f" ± {statistics.stdev(values):.1g}" if len(values) > 1 and name != "trainable_share" else ""
    return show(statistics.fmean(values)) + spread


def _csv(rows: Sequence[Row]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row.changes))
    numbers = sorted({name for row in rows for name in row.numbers})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "status", *keys, *numbers, "note"])
    for row in rows:
        changed, measured = [row.changes.get(k, "") for k in keys], [row.numbers.get(k, "") for k in numbers]
        writer.writerow([row.name, row.status, *changed, *measured, row.note])
    return out.getvalue()
