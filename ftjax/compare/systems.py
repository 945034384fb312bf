"""What is compared: a run, the base before it, or a model measured by scripts/evaluate.py, read from its folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ftjax.data import files
from ftjax.errors import UserError
from ftjax.runs import jsonl

BASE = "base"
HELD_OUT, RETENTION = "held-out", "retention"
SETS = {HELD_OUT: "held_out.jsonl", RETENTION: "retention.jsonl"}
_TEXTS = ("prompt", "reference", "task")
_BESIDE = "give it as --evaluations, with the run that it has measured among --runs"
_EVALUATIONS = {  # folders of scripts/evaluate.py without held-out rows, by the section of their config
    "harness": f"benchmarks, and no rows of a run; {_BESIDE}",
    "judge": "what a judge said, and no rows of a run; give it as --evaluations",
    "text": "the perplexity of one long text, which has no rows to compare; measure rows with configs/eval/held_out.py",
}

PARTS = "parts"  # of a row: how many things a mean of it is of, as the instructions of a prompt

Key = tuple[str, int]  # the id of a row, and which of those with this id it is


class Row(NamedTuple):
    """One row as one system did on it; `numbers` by their name in the file, those that are finite."""

    prompt: str
    reference: str | None
    task: str | None
    answer: str | None
    numbers: dict[str, float]


Rows = dict[Key, Row]


@dataclasses.dataclass(frozen=True)
class System:
    """One of those that are compared. `run` is the folder that knows what training cost; None where there is none."""

    name: str
    argument: str  # what named it
    folder: Path
    kind: str  # run | base | evaluation
    run: Path | None
    model: dict[str, Any]  # content hash of the base, and the adapter
    tokenizer: dict[str, Any]
    config: dict[str, Any]
    data: dict[str, Any]  # data.json of the run; empty for a base
    summary: dict[str, Any]
    sets: dict[str, Rows]
    asked: dict[str, dict[str, Any]]  # by set, how answers were made and marked: what a score depends on

    @property
    def series(self) -> list[dict[str, float]]:
        """Returns the lines of metrics.jsonl of a run; of a base nothing."""
        file = self.run / "metrics.jsonl" if self.run is not None and self.kind != "base" else None
        return jsonl.read(file) if file is not None and file.exists() else []


def read(arguments: Sequence[str]) -> list[System]:
    """Returns the systems of --runs in order: run folders, folders of scripts/evaluate.py, `base`, `base:RUN`.

    Names are those of the folders; where two are alike, with what tells them apart.
    """
    if len(set(arguments)) != len(arguments):
        raise UserError(f"--runs names {_twice(arguments)} twice; name each run once")
    first = next((text for text in arguments if not text.startswith(f"{BASE}:") and _is_run(text)), None)
    found = [dataclasses.replace(_one(text, first), argument=text.rstrip("/")) for text in arguments]
    if len(found) < 2:
        raise UserError("--runs names one run; name two or more, or `base` beside it for the model before training")
    names = [one.name for one in found]
    names = [_longer(one) if names.count(one.name) > 1 else one.name for one in found]
    if len(set(names)) < len(names):
        raise UserError(f"--runs has {_twice(names)} twice; name each run once")
    return [dataclasses.replace(one, name=name) for one, name in zip(found, names, strict=True)]


def named(systems: Sequence[System], wanted: str) -> System:
    """Returns the system that --baseline names: by its name, or by what stands behind --runs."""
    names = lambda one: (one.argument, one.name, str(one.folder)) if one.kind != BASE else (one.argument, one.name)
    for one in systems:
        if wanted.rstrip("/") in names(one):
            return one
    known = [one.name for one in systems]
    raise UserError(
        f"--baseline {wanted}: it is none of --runs, which are {', '.join(known)}{files.close_to(wanted, known)}"
    )


def _twice(names: Sequence[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _longer(one: System) -> str:
    """Returns a name that tells a system from another one of its name."""
    if one.kind == BASE:
        return f"{BASE} of {one.folder.resolve().name}"
    return f"{one.name} in {one.folder.name}" if one.kind == "evaluation" else "/".join(one.folder.resolve().parts[-2:])


def _is_run(text: str) -> bool:
    return (Path(text) / "summary.json").is_file() and (Path(text) / "before.json").is_file()


def _one(text: str, first: str | None) -> System:
    kind, _, where = text.partition(":")
    if kind == BASE and not Path(text).exists():
        where = where or first or ""
        if not where:
            raise UserError(f"{text}: the base is what a run was before training; name its run, as in base:runs/NAME")
        return _of_run(files.existing(where), "before", "base")
    folder = files.existing(text)
    if (folder / "evaluation.json").is_file():
        return _of_evaluation(folder)
    return _of_run(folder, "after", "run")


def _of_run(folder: Path, side: str, kind: str) -> System:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no run folder and no folder of scripts/evaluate.py; give one of these")
    _trained(folder)
    if not (folder / "DONE").exists():
        raise UserError(
            f"{folder} did not come to its end; go on with python scripts/train.py --workdir {folder} --resume"
        )
    read_sets, config = _sets(folder, side), facts(folder / "config.json")
    if HELD_OUT not in read_sets:
        raise UserError(
            f"{folder} has no held_out.jsonl, its numbers row by row, because an older ftjax made it; measure it with "
            f"python scripts/evaluate.py --config configs/eval/held_out.py:run={folder} and compare the folder of that"
        )
    model = facts(folder / "base.json")
    return System(
        name=BASE if kind == "base" else folder.resolve().name,
        argument="",
        folder=folder,
        kind=kind,
        run=folder,
        model={"hash": model.get("hash"), "adapter": None if kind == "base" else str(folder / "adapter")},
        tokenizer=facts(folder / "tokenizer.json"),
        config={} if kind == "base" else config,
        data={} if kind == "base" else facts(folder / "data.json"),
        summary=facts(folder / "summary.json"),
        sets=read_sets,
        asked={name: asked(config, name, own) for name, own in read_sets.items()},
    )


def _trained(folder: Path) -> None:
    """Raises where a folder is one of scripts/evaluate.py that has no rows, or did not come to its end."""
    config = facts(folder / "config.json")
    kind = next((name for name in _EVALUATIONS if name in config), None)
    if kind is not None:
        raise UserError(f"{folder} holds {_EVALUATIONS[kind]}")
    if "run" in config.get("model", {}):  # which no config of scripts/train.py has
        raise UserError(stopped(folder))


def stopped(folder: Path) -> str:
    """Returns what is to be done about a folder of scripts/evaluate.py that did not come to its end."""
    return (
        f"{folder} did not come to its end; give scripts/evaluate.py the same command again ({folder / 'command.sh'})"
    )


def asked(config: Mapping[str, Any], name: str, own: Rows) -> dict[str, Any]:
    """Returns how the answers of a set were made and marked by a config of a run or an evaluation; nothing of rows
    without a score."""
    if not any("score" in row.numbers for row in own.values()):
        return {}
    marked = config.get("retention" if name == RETENTION else "eval", {})
    known = {"check": marked.get("check"), "max_new_tokens": config.get("eval", {}).get("max_new_tokens")}
    return {key: value for key, value in known.items() if value is not None}


def _of_evaluation(folder: Path) -> System:
    if not (folder / "DONE").exists():
        raise UserError(stopped(folder))
    read_sets = _sets(folder, "after")
    if HELD_OUT not in read_sets:
        raise UserError(
            f"{folder} has no held_out.jsonl, its numbers row by row: it is of one long text, or of an older ftjax; "
            "measure again with configs/eval/held_out.py"
        )
    config, told = facts(folder / "config.json"), facts(folder / "evaluation.json")
    of = config.get("model", {})
    run = Path(of["run"]) if of.get("run") else None
    known = run if run is not None and (run / "summary.json").is_file() else None
    name = Path(of.get("run") or of.get("adapter") or of.get("path") or folder).name
    read_of = lambda file: facts(known / file) if known is not None else {}
    return System(
        name=name,
        argument="",
        folder=folder,
        kind="evaluation",
        run=known,
        model=told.get("model", {}),
        tokenizer=told.get("tokenizer") or read_of("tokenizer.json"),
        config=read_of("config.json"),
        data=read_of("data.json"),
        summary=read_of("summary.json"),
        sets=read_sets,
        asked={HELD_OUT: asked(config, HELD_OUT, read_sets[HELD_OUT])},
    )


def _sets(folder: Path, side: str) -> dict[str, Rows]:
    return {name: rows(folder / file, side) for name, file in SETS.items() if (folder / file).is_file()}


def rows(file: Path, side: str) -> Rows:
    """Returns the rows of a file as the model did on them `before` or `after`; those that one id names are numbered."""
    found: Rows = {}
    seen: Counter[str] = Counter()
    for number, line in files.lines(file):
        try:
            value = json.loads(line)
            measured = value.get(side) or {}
            texts = {name: value.get(name) for name in _TEXTS}
            row = Row(
                prompt=str(texts["prompt"] or ""),
                reference=None if texts["reference"] is None else str(texts["reference"]),
                task=None if texts["task"] is None else str(texts["task"]),
                answer=measured.get("answer"),
                numbers=numbers(measured),
            )
            key = str(value["id"])
        except (ValueError, KeyError, TypeError, AttributeError) as bad:
            raise UserError(
                f"{file}:{number}: no line of results ({type(bad).__name__}: {bad}); restore the file, or measure again"
            ) from None
        found[key, seen[key]] = row
        seen[key] += 1
    return found


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns what is a finite number among values, by name."""
    known = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in known.items() if math.isfinite(value)}


def facts(path: Path) -> dict[str, Any]:
    """Returns a JSON file of a folder; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as bad:
        raise UserError(f"{path} cannot be read ({bad}); restore it, or leave its run out") from None
