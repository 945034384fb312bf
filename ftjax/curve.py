"""A config and some sizes -> runs on nested parts of its training file, a power law through them, and an answer.

A composition root beside `sweep`, which makes the runs: folders that scripts/train.py could have made, and what is done
is not done again. Every run has the config's steps (steps 0: one epoch), so small parts are seen more often.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import math
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np

from ftjax import config as configs
from ftjax import experiment, held_out, sweep
from ftjax.data import files, versions
from ftjax.data import rows as rows_of
from ftjax.errors import UserError
from ftjax.evals import learning_curve
from ftjax.runs import atomic, plots, sweeps

SIZES = (50, 100, 200, 500, 1000)
LEAST = 2  # rows
_METRIC = re.compile(r"(before|after)\.eval_.+|(?!before\.|after\.)\w+\..+")  # of a section of summary.json


class Plan(NamedTuple):
    """What a curve is made of: runs by name, their sizes, and the data files that they read, by path."""

    entries: dict[str, dict[str, Any]]
    sizes: dict[str, int]
    data: dict[Path, list[Any]]
    rows: int


def plan(folder: Path, spec: str, common: Mapping[str, Any], *, sizes: Sequence[int] | None, seeds: int) -> Plan:
    """Returns the runs of a curve; a wrong config, size or data file is a UserError here, before anything runs.

    Parts of one seed are nested: the rows of a size are the first of one shuffled order. Where the config holds rows
    out of its training file, these are the same in all runs, and no part has them. Sizes None: SIZES as far as the
    rows go, and all rows.
    """
    config = configs.override(configs.load(spec), common)
    experiment.check(config.to_dict(), experiment.RANGES, experiment.CHOICES)
    if seeds < 1:
        raise UserError(f"--seeds {seeds} must be at least 1")
    if len(config.data.weights):
        raise UserError("config.data.weights: a mixture has no size to grow; mix the files first (data.py mix)")
    rows = [value for path in config.data.paths for value in _values(str(path))]
    data: dict[Path, list[Any]] = {}
    changes: dict[str, Any] = {}
    if not config.eval.path:
        e = config.eval
        held, kept = held_out.split(len(rows), most=e.rows, share=e.holdout, seed=config.seed)
        place = folder / "data" / "heldout.jsonl"
        data[place] = [rows[n] for n in held]
        known = {versions.row_hash(rows[n]) for n in held}  # a copy of a held-out row is not trained on
        rows = [row for row in (rows[n] for n in kept) if versions.row_hash(row) not in known]
        changes["eval.path"] = str(place)
    chosen = _sizes(sizes, len(rows))
    entries: dict[str, dict[str, Any]] = {}
    of: dict[str, int] = {}
    for seed in range(config.seed, config.seed + seeds):
        order = np.random.default_rng(np.random.SeedSequence((seed, 2))).permutation(len(rows))
        for size in chosen:
            place = folder / "data" / f"seed{seed}-{size}.jsonl"
            data[place] = [rows[n] for n in order[:size]]
            name = f"rows={size}+seed={seed}"
            entries[name], of[name] = {"data.paths": (str(place),), "seed": seed, **changes}, size
    for changed in entries.values():
        configs.override(configs.load(spec), {**common, **changed})
    return Plan(entries, of, data, len(rows))


def _values(path: str) -> list[Any]:
    """Returns the rows of a file as they stand in it; whether training takes them, training says."""
    found = rows_of.read(path).rows
    for row in found:
        if row.value is None and row.refusal is not None:
            raise row.refusal
    return [row.value for row in found]


def _sizes(asked: Sequence[int] | None, rows: int) -> list[int]:
    if asked is None:
        sizes = sorted({*(size for size in SIZES if size < rows), min(rows, SIZES[-1])})
        if len(sizes) < learning_curve.SIZES:
            shown, ways = ", ".join(map(str, sizes)), ",".join(str(rows // part) for part in (4, 2, 1))
            more = f"give others, say --sizes {ways}" if rows // 4 >= LEAST else "collect more"
            raise UserError(
                f"{rows} rows to train on make too few of the usual sizes ({shown}) for a curve, which needs "
                f"{learning_curve.SIZES}; {more}"
            )
        return sizes
    for size in asked:
        if not LEAST <= size <= rows:
            raise UserError(f"--sizes {size}: there are {rows:,} rows to train on; give {LEAST} to {rows}")
    return sorted(set(asked))


def write_data(made: Plan) -> None:
    """Writes the parts; those of an earlier call must be the same."""
    for place, values in made.data.items():
        if place.exists():
            if versions.now(str(place)) != versions.content(values).hash:
                raise UserError(
                    f"{place} holds other rows than the config's file has now; give another --workdir, or move it away"
                )
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_rows(place, values)


def run(
    folder: Path,
    spec: str,
    common: Mapping[str, Any],
    made: Plan,
    *,
    train: sweep.Train,
    metric: str,
    worth: float | None,
    say: Callable[[str], None],
) -> learning_curve.Answer:
    """Returns what the runs say of more rows, after those that were missing; with curve.json, curve.md, curve.png.

    A wrong metric is a UserError, after the first run at the latest. Raises `sweep.InterruptedSweepError` after a run
    that was stopped; the same call goes on.
    """
    _check_asked(metric, worth)

    def trained(jobs: Sequence[sweep.Job], say: sweep.Say) -> Iterator[sweep.Tried]:
        for name in sorted(made.entries.keys() - {job.name for job in jobs}):  # done by an earlier call
            _check_has(folder, name, metric)
        write_data(made)  # into the folder, which is ours by now
        for job, error in train(jobs, say):
            yield job, error
            _check_has(folder, job.name, metric)

    rows = sweep.sweep(folder, spec, made.entries, common=common, train=trained, metric=metric, say=say)
    known = [row for row in rows if metric in row.numbers]
    if not known:
        first = next((f": {row.name} {row.status}{row.note and f', {row.note}'}" for row in rows), "")
        raise UserError(f"no run came to its end, so there is no curve{first}; {folder / 'table.md'} has all of them")
    sizes, values = [made.sizes[row.name] for row in known], [row.numbers[metric] for row in known]
    found = learning_curve.answer(sizes, values, metric=metric.rpartition(".")[2], worth=worth, seed=0)
    atomic.write_json(folder / "curve.json", atomic.strict(facts(rows, made, found, metric)))
    atomic.write_text(folder / "curve.md", markdown(sizes, values, found, metric))
    if found.curve is not None:
        _draw(folder / "curve.png", sizes, values, found.curve, metric)
    return found


def _check_asked(metric: str, worth: float | None) -> None:
    """Raises for what no run can have, before there is one."""
    if worth is not None and not 0 <= worth < math.inf:
        raise UserError(f"--worth {worth} must be a gain, at least 0")
    if _METRIC.fullmatch(metric) is None:
        near = files.close_to(f"after.{metric.rpartition('.')[2]}", [name for name in sweeps.MEASURES if "." in name])
        raise UserError(
            f"--metric {metric}: must be a number in a section of a run's summary.json{near}; give after.eval_loss, "
            "after.eval_score or another SECTION.NAME"
        )


def _check_has(folder: Path, name: str, metric: str) -> None:
    """Raises where a run that is done lacks the metric: no other one will have it."""
    numbers = sweeps.read(folder, name, {}).numbers
    if numbers and metric not in numbers:
        raise UserError(
            f"--metric {metric}: {folder / name} has none{files.close_to(metric, list(numbers))}; there are "
            f"{', '.join(sorted(numbers))}"
        )


def facts(
    rows: Sequence[sweeps.Row], made: Plan, found: learning_curve.Answer, metric: str
) -> dict[str, Any]:  # fmt: skip
    """Returns what curve.json holds."""
    law = None
    if found.curve is not None:
        ends = learning_curve.interval(found.curve.draws).T.tolist()
        law = {
            name: {"value": value, "interval": end}
            for name, value, end in zip("abc", found.curve.law, ends, strict=True)
        }
    runs = [
        {"name": row.name, "rows": made.sizes[row.name], "seed": row.changes["seed"], "status": row.status}
        | {"value": row.numbers.get(metric)}
        for row in rows
    ]
    return {
        "metric": metric, "answer": found.text, "verdict": found.verdict, "law": law, "runs": runs,
        "gains": [one._asdict() for one in found.gains], "rows": made.rows,
    }  # fmt: skip


def markdown(sizes: Sequence[int], values: Sequence[float], found: learning_curve.Answer, metric: str) -> str:
    """Returns the curve as a table, what more rows would gain, and the answer."""
    lines = [f"| rows | runs | {metric} |", "|---|---|---|"]
    for size in sorted(set(sizes)):
        own = [value for other, value in zip(sizes, values, strict=True) if other == size]
        spread = f" ± {np.std(own, ddof=1):.2g}" if len(own) > 1 else ""
        lines.append(f"| {size:,} | {len(own)} | {np.mean(own):.4g}{spread} |")
    if found.curve is not None:
        a, b, c = found.curve.law
        lines += ["", f"{metric} = {a:.4g} {'+' if b >= 0 else '-'} {abs(b):.4g} n^-{c:.3g}", ""]
        lines += ["| up to rows | gain over the largest size (95 %) |", "|---|---|"]
        lines += [f"| {one.rows:,} | {one} |" for one in found.gains]
    return "\n".join([*lines, "", found.text]) + "\n"


def _draw(path: Path, sizes: Sequence[int], values: Sequence[float], curve: learning_curve.Curve, metric: str) -> None:
    across = np.geomspace(min(sizes), max(sizes) * max(learning_curve.FACTORS[:2]), 100)
    band = plots.Band("power law, 95 %", across, curve.law.at(across), *curve.band(across))
    runs = [(n, y) for n, y in zip(sizes, values, strict=True) if math.isfinite(y)]
    plots.grown(runs, band, path, title="Metric by rows of training data", across="rows", unit=metric)
