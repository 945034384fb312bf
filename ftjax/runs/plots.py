"""A run in pictures, drawn from `metrics.jsonl` alone, so any run can be drawn again at any time."""

from collections.abc import Mapping, Sequence
import math
from pathlib import Path
import statistics
from typing import Any, NamedTuple

from ftjax.runs import jsonl

Series = Mapping[str, list[tuple[int, float]]]  # metric -> (step, value) in order
EVAL = ("eval_", "eval/")
STEP = "optimizer step"
NOISY = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "accuracy")
BLUE, ORANGE, GREY = "#2f6db5", "#d9741a", "#a8b4c2"
LINES = (BLUE, ORANGE, "#3a8f4d", "#8a5fb0", "#b3261e", "#1f9aa5", "#8c6d46", "#5b6673")


class Curve(NamedTuple):
    """A line, or points where it is not `joined`, that a legend names."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    joined: bool


class Band(NamedTuple):
    """A line with the interval around it, that a legend names."""

    label: str
    x: Any
    y: Any
    low: Any
    high: Any


class Plot(NamedTuple):
    """One picture: the metrics that it shows, each with its label, and its axis."""

    name: str
    title: str
    unit: str
    metrics: Mapping[str, str]
    log_scale: bool = False


PLOTS = (
    Plot(
        "loss", "Loss", "nats per trained token", {"loss": "training", "eval_loss": "held out", "eval/loss": "held out"}
    ),
    Plot(
        "rewards",
        "Implicit rewards",
        "mean of beta log(policy / reference)",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margins": "margin"},
    ),
    Plot(
        "logps",
        "Log-probabilities of completions",
        "nats",
        {"logps/chosen": "chosen", "logps/rejected": "rejected"},
    ),
    Plot(
        "accuracy",
        "Pairs in the right order",
        "share",
        {
            "rewards/accuracies": "training",
            "eval_rewards/accuracies": "held out",
            "accuracy": "training",
            "eval_accuracy": "held out",
        },
    ),
    Plot("learning_rate", "Learning rate", "step size of one update", {"learning_rate": "learning rate"}),
    Plot("grad_norm", "Gradient norm", "global norm before clipping", {"grad_norm": "gradient norm"}, log_scale=True),
    Plot("throughput", "Throughput", "tokens per second", {"tokens_per_second": "tokens per second"}),
)


def draw(metrics: Path, folder: Path) -> list[Path]:
    """Returns the PNG files that it wrote to `folder`: one for each of `PLOTS` with data, and `eval.png`.

    Values that are not finite are left out of the line and marked at the foot of the plot.
    """
    series = collect(jsonl.read(metrics))
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for plot in PLOTS:
        shown = {name: series[name] for name in plot.metrics if series.get(name)}
        if shown:
            of_pairs = plot.name == "loss" and ("rewards/margins" in series or "accuracy" in series)
            unit = "of a pair or completion" if of_pairs else plot.unit
            written.append(_one(plot, shown, folder / f"{plot.name}.png", unit))
    rest = {name: points for name, points in series.items() if name.startswith(EVAL) and name[5:] != "loss"}
    if rest:
        written.append(_many(rest, folder / "eval.png"))
    return written


def collect(rows: Sequence[Mapping[str, float]]) -> Series:
    """Returns the points of each metric in the order of the file."""
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                series.setdefault(name, []).append((int(row["step"]), value))
    return series


def smooth(values: Sequence[float]) -> list[float]:
    """Returns the running median over a centred window of about a twentieth of the points.

    Centred, so it does not lag behind a falling loss; a median, so one spike does not lift its neighbours.
    """
    half = max(1, len(values) // 40)
    widths = [min(half, place, len(values) - 1 - place) for place in range(len(values))]
    return [statistics.median(values[at - width : at + width + 1]) for at, width in enumerate(widths)]


def _one(plot: Plot, shown: Series, path: Path, unit: str) -> Path:
    drawn, (axes,) = figure(1)
    for name, points in shown.items():
        own = LINES[list(shown).index(name)]
        color = own if plot.name in ("rewards", "logps") else ORANGE if name.startswith(EVAL) else BLUE
        _line(axes, points, label=plot.metrics[name], color=color, smoothed=not name.startswith(EVAL) and name in NOISY)
    positive = [value for points in shown.values() for _, value in points if math.isfinite(value) and value > 0]
    if plot.log_scale and positive and max(positive) > 20 * min(positive):
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_formatter("{x:g}")  # the default puts a factor 1e-5 where the title is
    if plot.name == "throughput":
        axes.set_ylim(bottom=0)
    label(axes, plot.title, STEP, unit)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False)
    return save(drawn, path)


def _many(series: Series, path: Path) -> Path:
    """Draws each evaluation metric into its own field: they share steps, not units."""
    drawn, fields = figure(len(series))
    for axes, (name, points) in zip(fields, sorted(series.items()), strict=True):
        _line(axes, points, label=name, color=ORANGE, smoothed=False)
        label(axes, f"Held out: {name[5:]}", STEP, name)
    return save(drawn, path)


def _line(axes: Any, points: list[tuple[int, float]], *, label: str, color: str, smoothed: bool) -> None:
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    broken = [step for step, value in points if not math.isfinite(value)]
    if broken:
        foot = axes.get_xaxis_transform()
        axes.plot(broken, [0.02] * len(broken), "x", color="#b3261e", transform=foot, label="not finite")
    if not finite:
        return
    steps, values = zip(*finite, strict=True)
    few = len(finite) <= 30
    if smoothed and not few:
        axes.plot(steps, values, color=GREY, linewidth=0.8)
        axes.plot(steps, smooth(values), color=color, linewidth=1.8, label=f"{label}, running median")
    else:
        axes.plot(steps, values, color=color, linewidth=1.8, marker="o" if few else None, markersize=4, label=label)


def curves(shown: Sequence[Curve], path: Path, *, title: str, across: str, unit: str) -> Path:
    """Returns the path of the picture of several curves in one field; points lie over lines."""
    drawn, (axes,) = figure(1)
    for curve, color in zip(shown, colors(len(shown)), strict=True):
        style = (
            {"linewidth": 1.8} if curve.joined else {"linestyle": "", "marker": "o", "markersize": 4.5, "alpha": 0.75}
        )
        axes.plot(curve.x, curve.y, color=color, label=curve.label, zorder=2 if curve.joined else 3, **style)
    label(axes, title, across, unit)
    axes.legend(frameon=False)
    return save(drawn, path)


def grown(runs: Sequence[tuple[float, float]], band: Band, path: Path, *, title: str, across: str, unit: str) -> Path:
    """Returns the path of the picture of runs as dots over a size, on a log scale, and the law through them.

    The law goes on beyond the largest run, where it is dashed.
    """
    drawn, (axes,) = figure(1)
    axes.set_xscale("log")
    axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.15, linewidth=0, label=band.label)
    seen = band.x <= max(x for x, _ in runs)
    axes.plot(band.x[seen], band.y[seen], color=BLUE, linewidth=1.8)
    axes.plot(band.x[~seen], band.y[~seen], color=BLUE, linewidth=1.4, linestyle="--")
    axes.plot([x for x, _ in runs], [y for _, y in runs], "o", color=ORANGE, alpha=0.75, markersize=4.5, label="a run")
    sizes = sorted({x for x, _ in runs})
    room = (band.x.max() / sizes[0]) ** 0.07  # of a label; the largest size keeps its own
    named = [a for a, b in zip(sizes, [*sizes[1:], math.inf], strict=True) if b >= a * room]
    axes.set_xticks(sizes, [f"{size:,}" if size in named else "" for size in sizes])
    axes.minorticks_off()
    label(axes, title, across, unit)
    axes.legend(frameon=False)
    return save(drawn, path)


def frontier(
    points: Sequence[tuple[str, float, float, tuple[float, float]]], path: Path, *, title: str, unit: str
) -> Path:  # fmt: skip
    """Returns the path of the picture of methods as (name, KL, reward, its interval): gain and price."""
    drawn, (axes,) = figure(1)
    for (name, kl, reward, (low, high)), color in zip(points, colors(len(points)), strict=True):
        spread = [[max(reward - low, 0.0)], [max(high - reward, 0.0)]]
        axes.errorbar([kl], [reward], yerr=spread, fmt="o", capsize=4, color=color, label=name)
    axes.legend(frameon=False)
    label(axes, title, "KL to the start, nats a completion", unit)
    return save(drawn, path)


def reliability(models: Mapping[str, Sequence[tuple[float, float, int]]], path: Path, *, title: str) -> Path:
    """Returns the path of the picture of accuracy over confidence, one line a model.

    A model is its bins (confidence, accuracy, pairs), as `evals.calibration.reliability` gives them; a bin without
    pairs is left out, and the size of a mark is the share of the pairs. Who is as often right as it says lies on the
    dashed line.
    """
    from matplotlib import ticker

    drawn, (axes,) = figure(1)
    axes.xaxis.set_major_locator(ticker.AutoLocator())
    axes.plot([0.5, 1], [0.5, 1], linestyle="--", color=GREY, linewidth=1.2, label="as often right as it says")
    for (name, bins), color in zip(models.items(), colors(len(models)), strict=True):
        held = [entry for entry in bins if entry[2]]
        total = sum(entry[2] for entry in held)
        x, y, sizes = [e[0] for e in held], [e[1] for e in held], [8 + 200 * e[2] / total for e in held]
        axes.plot(x, y, color=color, linewidth=1.4, label=name)
        axes.scatter(x, y, s=sizes, color=color, alpha=0.6)
    label(axes, title, "confidence", "accuracy")
    axes.legend(frameon=False)
    return save(drawn, path)


def colors(count: int) -> list[str]:
    """Returns a colour for each of so many lines; past the last one they begin again."""
    return [LINES[place % len(LINES)] for place in range(count)]


def label(axes: Any, title: str, across: str, unit: str) -> None:
    """Writes the title and the names of both axes, and draws the grid."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(unit)
    axes.grid(True, color="#e6e9ed", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def figure(fields: int) -> tuple[Any, list[Any]]:
    """Returns a figure that draws to files only, so no display is needed and no global state is touched."""
    from matplotlib import ticker
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    columns = 1 if fields == 1 else 2
    rows = -(-fields // columns)
    drawn = Figure(figsize=(6.4 * (1 if columns == 1 else 1.6), 3.6 * rows), dpi=120, layout="constrained")
    backend_agg.FigureCanvasAgg(drawn)
    found = [drawn.add_subplot(rows, columns, index + 1) for index in range(fields)]
    for axes in found:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    return drawn, found


def save(drawn: Any, path: Path) -> Path:
    """Writes a figure and returns its path."""
    drawn.savefig(path)
    return path
