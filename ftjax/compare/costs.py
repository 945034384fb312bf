"""What systems cost, and what they were made of: parameters, tokens, seconds, bytes; configs and data that differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftjax import config as configs
from ftjax.compare import measures, systems
from ftjax.compare.systems import System
from ftjax.data import difference, rows, used
from ftjax.errors import UserError

_OF_TRAINING = ("trainable_parameters", "num_tokens", "train_seconds", "tokens_per_second", "step")
_NOT_COMPARED = ("log.", "checkpoint.")  # sections that change no number
_LARGEST = 50_000_000  # bytes of a data file that is compared row by row


def of_system(one: System) -> dict[str, Any]:
    """Returns what is known of a system's cost; the base has the parameters and no training."""
    summary, trained = one.summary, one.kind != systems.BASE and one.run is not None
    found = {"parameters": summary.get("parameters")}
    if one.kind == systems.BASE or not (one.run or one.model.get("adapter")):
        found |= {"trainable_parameters": 0, "num_tokens": 0, "train_seconds": 0.0, "saved_bytes": 0}
    if trained and one.run is not None:
        found |= {name: summary.get(name) for name in _OF_TRAINING}
        found["peak_bytes"] = summary.get("device_memory_peak_bytes", summary.get("memory_peak_bytes"))
        found["saved_bytes"] = _size(one.run)
        found["devices"] = systems.facts(one.run / "environment.json").get("devices")
    held = one.sets[systems.HELD_OUT]
    found |= {f"answer_{name}": measures.mean_of(held, f"answer_{name}") for name in ("tokens", "seconds")}
    told = systems.facts(one.folder / "evaluation.json")
    if found["answer_seconds"] is None:
        found["answer_seconds"] = told.get("answer_seconds")
    return {name: value for name, value in found.items() if value is not None}


def least_seconds(found: Sequence[System], cost: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the same costs with the least seconds an answer that was timed of each model: time that a machine spent
    on other work only adds to it."""
    least: dict[tuple[Any, Any], float] = {}
    for one in found:
        seconds, model = cost[one.name].get("answer_seconds"), (one.model.get("hash"), one.model.get("adapter"))
        if seconds is not None:
            least[model] = min(seconds, least.get(model, seconds))
    told = {one.name: least.get((one.model.get("hash"), one.model.get("adapter"))) for one in found}
    return {
        name: {**own, "answer_seconds": told[name]} if "answer_seconds" in own else dict(own)
        for name, own in cost.items()
    }


def _size(run: Path) -> int | None:
    """Returns the bytes on the disk of what a run has saved: its adapter, or its whole model."""
    folder = next((run / name for name in ("adapter", "model") if (run / name).is_dir()), None)
    return None if folder is None else sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def config_difference(found: Sequence[System]) -> dict[str, dict[str, Any]]:
    """Returns the values of the keys in which configs differ, by key and system, where the system has the key."""
    known = {one.name: configs.flatten(one.config) for one in found if one.config}
    told: dict[str, dict[str, Any]] = {}
    for first in known.values():
        for second in known.values():
            for key in configs.difference(first, second):
                if not key.startswith(_NOT_COMPARED):
                    told[key] = {name: own[key] for name, own in known.items() if key in own}
    return dict(sorted(told.items()))


def data_versions(found: Sequence[System]) -> list[dict[str, Any]]:
    """Returns for each system the files that it was trained on, with version, rows and tokens."""
    return [
        {
            "name": one.name,
            "paths": one.data["paths"],
            "hash": one.data.get("hash"),
            "files": one.data.get("files", []),
            "rows": one.data.get("report", {}).get("kept", one.data.get("report", {}).get("rows")),
            "tokens": one.data.get("report", {}).get("tokens"),
        }
        for one in found
        if one.data
    ]


def data_differences(found: Sequence[System], baseline: System) -> list[str]:
    """Returns sentences on runs that were trained on other rows than the first one: how many, and between files that
    are still there what was added, removed and changed."""
    read = [one for one in found if one.data]
    first = baseline if baseline in read else next(iter(read), None)
    if first is None:
        return []
    return [line for one in read if one is not first for line in (*_rows(first, one), *_files(first, one))]


def _rows(first: System, other: System) -> list[str]:
    """Returns a sentence on the rows by their hashes, where both runs keep the table of them and it differs."""
    a, b = _trained(first), _trained(other)
    if a is None or b is None or np.array_equal(a, b):
        return []
    new, gone = len(np.setdiff1d(b, a)), len(np.setdiff1d(a, b))
    return [
        f"{other.name} was trained on {len(b):,} different rows, {new:,} of them unknown to {first.name}, which "
        f"has {gone:,} that {other.name} has not"
    ]


def _trained(one: System) -> np.ndarray | None:
    if one.run is None or not (one.run / used.ROWS).is_file():
        return None
    table = used.load(one.run / used.ROWS)
    use = table.names.index(used.TRAINED) if used.TRAINED in table.names else len(table.names)
    return np.unique(table.hashes[table.uses == use])


def _files(first: System, other: System) -> list[str]:
    paths = [one.data.get("paths", ()) for one in (first, other)]
    if any(len(one) != 1 for one in paths) or paths[0] == paths[1]:
        return []
    a, b = (str(one[0]) for one in paths)
    if not all(Path(file).is_file() and Path(file).stat().st_size <= _LARGEST for file in (a, b)):
        return []
    try:
        gap = difference.between(rows.read(a), rows.read(b))
    except UserError as bad:
        return [f"{a} and {b} cannot be compared: {bad}"]
    return [
        f"{b} ({other.name}) against {a} ({first.name}): {len(gap.added):,} rows added, {len(gap.removed):,} removed, "
        f"{len(gap.changed):,} changed, {gap.same + gap.reshaped:,} the same"
    ]
