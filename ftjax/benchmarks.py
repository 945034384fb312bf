"""A config -> what a model does on tasks of lm-evaluation-harness.

A composition root like `evaluation`: `build` checks everything without weights, `measure` reads them.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ftjax import experiment, inference
from ftjax.checkpoint import hf_import
from ftjax.data import files
from ftjax.errors import UserError, some
from ftjax.evals import extra, harness, local_tasks, statistics

RANGES: dict[str, experiment.Range] = {
    "seed": experiment.RANGES["seed"],
    "harness.limit": (lambda v: v >= 0, "at least 0 (0: all)"),
    "harness.shots": (lambda v: v >= -1, "at least -1 (-1: as many as the task says)"),
    "harness.new_tokens": (lambda v: v >= 0, "at least 0 (0: as many as the task says)"),
    "harness.length": experiment.COUNT,
    "harness.rows": experiment.COUNT,
    "eval.level": (lambda v: 0 < v < 1, "in (0, 1)"),
}
CHOICES = {name: experiment.CHOICES[name] for name in ("model.dtype", "model.weights")}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Everything that measuring needs, but for weights."""

    config: dict[str, Any]
    made: inference.Made
    tasks: list[str | dict[str, Any]]  # names of the harness's, or its description of one of ours
    known: Any  # the harness's TaskManager

    @property
    def name(self) -> str:
        """Returns what is measured, for the name of a folder."""
        model = self.config["model"]
        return f"bench-{Path(model['run'] or model['adapter'] or model['path']).name}"


def build(config: Any) -> Benchmark:
    """Returns the benchmark of a config; whatever is wrong with it is a UserError here, before weights are read."""
    c = experiment.plain(config)
    experiment.check(c, RANGES, CHOICES)
    h = c["harness"]
    made = inference.made_of(c["model"], template=c["data"]["template"], quant=c["quant"])
    inference.folder_of(made.model)
    own = local_tasks.found(files.existing(h["data"])) if h["data"] else {}
    include = str(files.existing(h["include"])) if h["include"] else None
    if not h["tasks"]:
        more = f"; {h['data']} has {', '.join(own)}" if own else ""
        raise UserError(
            f"config.harness.tasks is empty; name tasks of lm-evaluation-harness: (arc_easy,hellaswag){more}"
        )
    tasks = [own.get(name, name) for name in h["tasks"]]
    known, theirs = _known(include, everything=False)
    if not {*h["tasks"]} <= {*own, *theirs}:
        known, theirs = _known(include, everything=True)
    for name in tasks:
        if isinstance(name, str) and name not in theirs:
            near = files.close_to(name, [*own, *sorted(theirs)])
            raise UserError(
                f"config.harness.tasks: there is no task {name!r}{near}; local ones: {some([*own], 20) or '-'}"
            )
        if isinstance(name, dict):
            name["custom_dataset"]()  # what is wrong with its file is said now
    return Benchmark(c, made, tasks, known)


def _known(include: str | None, *, everything: bool) -> tuple[Any, set[str]]:
    """Returns the harness's TaskManager and the names it has; reading its own 14,000 tasks takes 6 s or more."""
    found = extra.library("lm_eval.tasks").TaskManager(include_path=include, include_defaults=everything)
    return found, {*found.all_tasks, *found.all_groups, *found.all_tags}


def measure(x: Benchmark) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what benchmarks.json and samples.jsonl hold."""
    h = x.config["harness"]
    model = inference.load_made(x.made, dtype=x.config["model"]["weights"])
    config = dataclasses.replace(model.config, dtype=x.config["model"]["dtype"])
    bridge = harness.bridge(
        model.params,
        config,
        model.tokenizer,
        chat=model.template,
        stop_ids=model.stop_ids,
        length=h["length"],
        rows=h["rows"],
        seed=x.config["seed"],
    )
    found = extra.library("lm_eval").simple_evaluate(
        bridge,
        tasks=x.tasks,
        num_fewshot=None if h["shots"] < 0 else h["shots"],
        limit=h["limit"] or None,
        gen_kwargs={"max_gen_toks": h["new_tokens"]} if h["new_tokens"] else None,
        apply_chat_template=h["chat"],
        task_manager=x.known,
        bootstrap_iters=0,
        log_samples=True,
        random_seed=x.config["seed"],
        fewshot_random_seed=x.config["seed"],
    )
    rows = {task: _rows(task, samples) for task, samples in sorted(found["samples"].items())}
    facts = {
        "model": {
            "path": x.made.model,
            "hash": hf_import.content_hash(inference.folder_of(x.made.model)),
            "adapter": x.made.adapter,
        },
        "harness": {"version": found.get("lm_eval_version"), "versions": found["versions"], "shots": found["n-shot"]},
        "tasks": {
            task: _numbers(result, rows.get(task, []), x.config["eval"]["level"])  # a group of tasks has no rows
            for task, result in sorted(found["results"].items())
        },
    }
    return facts, [row for own in rows.values() for row in own]


def _rows(task: str, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a line for each question and filter: its metrics, which paired comparisons take, and its answers."""
    return [
        {
            "task": task,
            "doc": one["doc_id"],
            "doc_hash": one["doc_hash"],
            "filter": one["filter"],
            "target": one["target"],
            "answers": one["filtered_resps"],
            **{name: one[name] for name in one["metrics"] if name in one},
        }
        for one in samples
    ]


def _numbers(result: Mapping[str, Any], rows: list[dict[str, Any]], level: float) -> dict[str, Any]:
    """Returns the metrics of a task; those that are 0 or 1 of each question, or of each of its parts (the instructions
    of a prompt), have their Wilson interval."""
    numbers: dict[str, Any] = {}
    for key, value in result.items():
        name, _, used = key.partition(",")
        if not used or name.endswith("_stderr") or not isinstance(value, int | float):
            continue
        each = [row.get(name) for row in rows if row["filter"] == used]
        parts = [(n, part) for n, one in enumerate(each) for part in (one if isinstance(one, list) else [one])]
        question = np.array([n for n, _ in parts])
        right = np.array([float(part) for _, part in parts if part in (0, 1)])
        whole = len(right) == len(parts) > 0 and abs(right.mean() - value) < 1e-9
        numbers[key] = statistics.share(right, question, level=level)._asdict() if whole else {"value": float(value)}
    return numbers
