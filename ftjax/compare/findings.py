"""All numbers of a comparison as JSON takes them: metrics against the baseline, parts, costs, samples that changed.

The p of all systems and all metrics are one family, corrected by Holm: a difference is decided where the corrected p is
at most 1 - level and its own interval leaves 0 out. Parts of the rows are a family of their own, and so are the pairs
of systems on the metric that the verdict is about.
"""

from collections.abc import Mapping, Sequence
import itertools
from typing import Any

import numpy as np

from ftjax.compare import agreement, costs, frontier, measures, slices, systems, votes, words
from ftjax.compare.measures import Measure
from ftjax.compare.systems import System
from ftjax.errors import UserError
from ftjax.evals import paired, statistics

LEVEL, RESAMPLES, SEED = 0.95, 10_000, 0
ROUNDING = 1e-5  # of a value: differences as small are none
SAMPLES = 6  # of a kind and system, side by side
CURVES = (
    "loss",
    "eval_loss",
    "eval_score",
    "eval_reward",
    "rewards/margins",
    "rewards/accuracies",
    "reward",
    "grad_norm",
)

Entry = dict[str, Any]


def compare(
    found: Sequence[System],
    baseline: System,
    *,
    judges: Sequence[Mapping[str, Any]],
    people: Sequence[votes.Vote],
    bar: float | None,
    force: bool,
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Returns what comparison.json holds; raises where the systems may not be compared."""
    notes = agreement.agreed(found, baseline, force=force)
    settings = {"level": level, "resamples": resamples, "seed": seed}
    known, lacking = _measures(found)
    if not known:
        raise UserError(
            f"there is no number that all of --runs have{': ' if lacking else ''}{'; '.join(lacking)}; leave out the "
            "run that has none, or measure it again"
        )
    people, strange = votes.of_systems(people, [one.name for one in found])
    notes += [*lacking, *strange]
    main = measures.main(known)
    tested = [_tested(one, found, baseline, settings) for one in known]
    _correct([entry for table in tested for entry in table["against"].values() if table["better"]], level)
    _correct([entry for table in tested for entry in table["against"].values() if not table["better"]], level)
    cost = {one.name: costs.of_system(one) for one in found}
    timed = costs.least_seconds(found, cost)
    told = {
        "format": 1,
        "baseline": baseline.name,
        "level": level,
        "resamples": resamples,
        "seed": seed,
        "systems": [
            {
                "name": one.name,
                "folder": str(one.folder),
                "kind": one.kind,
                "rows": {name: len(rows) for name, rows in one.sets.items()},
                "check": systems.facts(one.folder / "config.json").get("eval", {}).get("check", ""),
            }
            for one in found
        ],
        "main": {"set": main.set, "field": main.field},
        "metrics": tested,
        "pairs": _pairs(main, found, baseline, settings),
        "slices": _slices(main, found, baseline, settings),
        "frontier": _frontier(tested[known.index(main)], timed, bar, main.better),
        "cost": cost,
        "curves": _curves(found),
        "changed": {one.name: _changed(main, baseline, one) for one in found if one is not baseline},
        "judges": list(judges),
        "people": votes.report(people, baseline=baseline.name, level=level),
        "configs": costs.config_difference(found),
        "data": costs.data_versions(found),
        "data_differences": costs.data_differences(found, baseline),
        "notes": notes,
    }
    return {**told, "verdict": words.verdict(told)}


def _measures(found: Sequence[System]) -> tuple[list[Measure], list[str]]:
    """Returns the metrics of all sets, and what is to be said of rows that some system has no number of."""
    names = dict.fromkeys(name for one in found for name in one.sets)
    tables: list[Measure] = []
    lacking: list[str] = []
    for name in names:
        own = {one.name: one.sets[name] for one in found if name in one.sets}
        keys = agreement.shared(found, name)
        if len(own) > 1 and keys:
            tables += measures.of_set(name, own, keys)
            lacking += measures.lacking(name, own, keys)
    return tables, lacking


def _tested(measure: Measure, found: Sequence[System], baseline: System, settings: Mapping[str, Any]) -> Entry:
    """Returns a metric of all systems, and of each its difference to the baseline."""
    values = measure.values
    return {
        "set": measure.set,
        "field": measure.field,
        "label": measure.label,
        "unit": measure.unit,
        "better": measure.better,
        "rows": len(measure.keys),
        "shared": measure.shared,
        "values": {name: paired.alone(own, measure.prompts, **settings)._asdict() for name, own in values.items()},
        "against": {}
        if baseline.name not in values
        else {
            one.name: _difference(measure, baseline.name, one.name, settings)
            for one in found
            if one is not baseline and one.name in values
        },
    }


def _difference(
    measure: Measure, a: str, b: str, settings: Mapping[str, Any], places: np.ndarray | None = None
) -> Entry:
    """Returns what system b has more than a, on all rows or those at `places`."""
    chosen = np.arange(len(measure.keys)) if places is None else places
    one, two = measure.values[a][chosen], measure.values[b][chosen]
    # Two measurements of one model differ by the rounding of float32 sums, and a test finds what is always so small.
    two = np.where(np.isclose(two, one, rtol=ROUNDING, atol=ROUNDING), one, two)
    entry = paired.difference(one, two, measure.prompts[chosen], **settings)._asdict()
    return entry | ({"gained": int(np.sum(two > one)), "lost": int(np.sum(two < one))} if measure.share else {})


def _correct(entries: Sequence[Entry], level: float) -> None:
    """Writes the corrected p of a family into its entries, and whether each is decided."""
    for entry, p in zip(entries, statistics.holm([entry["p"] for entry in entries]), strict=True):
        entry["p_corrected"] = float(p)
        entry["family"] = len(entries)
        entry["decided"] = bool(p <= 1 - level and (entry["low"] > 0 or entry["high"] < 0))


def _pairs(main: Measure, found: Sequence[System], baseline: System, settings: Mapping[str, Any]) -> list[Entry]:
    """Returns the differences between those that are not the baseline."""
    names = [one.name for one in found if one is not baseline and one.name in main.values]
    pairs = [{"a": a, "b": b, **_difference(main, a, b, settings)} for a, b in itertools.combinations(names, 2)]
    _correct(pairs, settings["level"])
    return pairs


def _slices(main: Measure, found: Sequence[System], baseline: System, settings: Mapping[str, Any]) -> list[Entry]:
    others = [one.name for one in found if one is not baseline and one.name in main.values]
    parts: list[Entry] = []
    for one in slices.find(baseline.sets[main.set], main.keys):
        against = {name: _difference(main, baseline.name, name, settings, one.places) for name in others}
        mean = float(np.mean(main.values[baseline.name][one.places]))
        parts.append({"by": one.by, "name": one.name, "rows": len(one.places), "baseline": mean, "against": against})
    _correct([entry for part in parts for entry in part["against"].values()], settings["level"])
    return parts


def _frontier(table: Entry, cost: Mapping[str, Mapping[str, Any]], bar: float | None, better: int) -> list[Entry]:
    if not better:
        return []
    names = list(table["values"])
    ends = [tuple(table["values"][name].values()) for name in names]
    found = [
        frontier.about(names, ends, [cost[name].get(price) for name in names], price=price, better=better, bar=bar)
        for price in ("parameters", "trainable_parameters", "train_seconds", "answer_seconds")
    ]
    return [one for one in found if one is not None]


def _curves(found: Sequence[System]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Returns the lines of each curve by system, as (step, value)."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for one in found:
        for row in one.series:
            for name in CURVES:
                if name in row:
                    curves.setdefault(name, {}).setdefault(one.name, []).append((row["step"], row[name]))
    return {name: curves[name] for name in CURVES if name in curves}


def _changed(main: Measure, baseline: System, other: System) -> dict[str, Any]:
    """Returns the rows that a system won and lost most against the baseline; of a loss, those that changed most."""
    if other.name not in main.values:
        return {"won": [], "lost": []}
    gaps = main.better * (main.values[other.name] - main.values[baseline.name])
    order = np.argsort(-gaps, kind="stable")
    won = [int(n) for n in order if gaps[n] > 0]
    lost = [int(n) for n in order[::-1] if gaps[n] < 0]
    shown = lambda places: [_sample(main, baseline, other, main.keys[n]) for n in places[:SAMPLES]]
    return {"won": shown(won), "lost": shown(lost), "won_count": len(won), "lost_count": len(lost)}


def _sample(main: Measure, baseline: System, other: System, key: systems.Key) -> dict[str, Any]:
    rows, by_token = [one.sets[main.set][key] for one in (baseline, other)], main.unit == measures.BY_TOKEN
    return {
        "id": key[0],
        "prompt": rows[0].prompt,
        "reference": rows[0].reference,
        "answers": [row.answer for row in rows],
        "numbers": [row.numbers[main.field] / (row.numbers["tokens"] if by_token else 1) for row in rows],
    }
