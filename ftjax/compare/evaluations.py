"""Folders of scripts/evaluate.py beside the runs: more held-out rows, benchmarks, judges."""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

from ftjax.compare import systems
from ftjax.compare.systems import System
from ftjax.data import files
from ftjax.errors import UserError

_NO_METRIC = ("task", "doc", "doc_hash", "filter", "target", "answers")


def added(found: Sequence[System], folders: Sequence[str]) -> tuple[list[System], list[dict[str, Any]]]:
    """Returns the systems with the sets that these folders have of them, and what judges said, as judge.json has it."""
    own = {one.name: dict(one.sets) for one in found}
    asked = {one.name: dict(one.asked) for one in found}
    judges = []
    for text in folders:
        folder = files.existing(text)
        if (folder / "judge.json").is_file():
            judges.append({"folder": str(folder), **systems.facts(folder / "judge.json")})
            continue
        kind = next((name for name in ("benchmarks.json", "evaluation.json") if (folder / name).is_file()), None)
        if kind is None and (folder / "before.json").is_file():
            raise UserError(f"{folder} is a run; give it as --runs, --evaluations takes folders of scripts/evaluate.py")
        if kind is None and (folder / "config.json").is_file() and not (folder / "DONE").exists():
            raise UserError(systems.stopped(folder))
        if kind is None:
            raise UserError(
                f"{folder} holds none of judge.json, benchmarks.json, evaluation.json; --evaluations takes folders of "
                "scripts/evaluate.py"
            )
        measured = _measured(found, folder, systems.facts(folder / kind))
        for name, rows in (_benchmarks(folder) if kind == "benchmarks.json" else _held_out(folder, own)).items():
            if name in own[measured.name]:
                raise UserError(f"{folder}: {measured.name} has {name} already; leave one of the two folders out")
            own[measured.name][name] = rows
            asked[measured.name][name] = _asked(folder, rows)
    return [dataclasses.replace(one, sets=own[one.name], asked=asked[one.name]) for one in found], judges


def _asked(folder: Path, rows: systems.Rows) -> dict[str, Any]:
    """Returns how the answers of a folder were made and marked; a benchmark's task marks them."""
    config = systems.facts(folder / "config.json")
    if "harness" not in config:
        return systems.asked(config, systems.HELD_OUT, rows)
    return {key: config["harness"][key] for key in ("chat", "new_tokens") if key in config["harness"]}


def _measured(found: Sequence[System], folder: Path, facts: dict[str, Any]) -> System:
    """Returns the system that a folder has measured: by the run that it names, else by base and adapter."""
    asked = systems.facts(folder / "config.json").get("model", {})
    if asked.get("run"):
        run = Path(asked["run"]).resolve()
        for one in found:
            if one.kind != systems.BASE and one.run is not None and one.run.resolve() == run:
                return one
        raise UserError(
            f"{folder} has measured {asked['run']}, which is none of --runs; add it there, or leave this out"
        )
    model = facts.get("model", {})
    adapter = model.get("adapter")
    for one in found:
        plain = one.kind == systems.BASE or (one.kind == "evaluation" and not one.model.get("adapter") and not one.run)
        if adapter is None and plain and one.model.get("hash") == model.get("hash"):
            return one
        if adapter is not None and one.model.get("adapter") and _same(one.model["adapter"], adapter):
            return one
    raise UserError(
        f"{folder} has measured {adapter or model.get('path')}, which is none of --runs; add it there (`base` for the "
        "model before training), or leave this out"
    )


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _held_out(folder: Path, own: Mapping[str, Mapping[str, systems.Rows]]) -> dict[str, systems.Rows]:
    """Returns the rows of a folder under the name that a set of the same rows has already, else under their file's."""
    file = folder / systems.SETS[systems.HELD_OUT]
    if not file.is_file():
        raise UserError(f"{folder} has no {file.name}: an older ftjax made it; measure it again")
    rows = systems.rows(file, "after")
    known = (name for sets in own.values() for name, others in sets.items() if others.keys() == rows.keys())
    path = str(systems.facts(folder / "evaluation.json")["data"]["path"])
    return {next(known, path if path.startswith("world:") else Path(path).name): rows}


def _benchmarks(folder: Path) -> dict[str, systems.Rows]:
    """Returns a set for each task and filter; a question is known by its hash."""
    found: dict[str, systems.Rows] = {}
    seen: Counter[tuple[str, str]] = Counter()
    shots = systems.facts(folder / "benchmarks.json").get("harness", {}).get("shots") or {}
    for number, line in files.lines(folder / "samples.jsonl"):
        try:
            value = json.loads(line)
            task, question = str(value["task"]), str(value["doc_hash"])
        except (ValueError, KeyError, TypeError) as bad:
            raise UserError(f"{folder / 'samples.jsonl'}:{number}: no sample of the harness ({bad!r})") from None
        few = f", {shots[task]} shots" if shots.get(task) else ""
        name = f"{task}{few}" if value.get("filter") in (None, "none") else f"{task}{few} ({value['filter']})"
        metrics = systems.numbers({key: one for key, one in value.items() if key not in _NO_METRIC})
        for key, parts in value.items():  # whether each instruction of a prompt was kept
            if key not in _NO_METRIC and isinstance(parts, list) and parts and all(isinstance(x, bool) for x in parts):
                metrics |= {key: sum(parts) / len(parts), systems.PARTS: float(len(parts))}
        answers = value.get("answers")
        answer = answers[0] if isinstance(answers, list) and answers and isinstance(answers[0], str) else None
        row = systems.Row(f"question {value.get('doc')}", str(value.get("target")), task, answer, metrics)
        found.setdefault(name, {})[question, seen[name, question]] = row
        seen[name, question] += 1
    return found
