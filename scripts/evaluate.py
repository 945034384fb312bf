"""Measures a run, or a model with or without an adapter, on held-out rows, a text or benchmarks; or has answers judged.

python scripts/evaluate.py --config configs/eval/held_out.py:run=runs/NAME[,data=FILE]
python scripts/evaluate.py --config configs/eval/held_out.py:model=DIR[,adapter=DIR],data=FILE
python scripts/evaluate.py --config configs/eval/text.py:run=runs/NAME,data=FILE.txt
python scripts/evaluate.py --config configs/eval/harness.py:run=runs/NAME --config.harness.tasks=(NAME,...)
python scripts/evaluate.py --config configs/eval/judge.py --config.judge.url=URL --config.judge.model=NAME
                           --config.data.path=PAIRS.jsonl
                           [--config.section.key=value ...] [--workdir runs/NAME]

Writes evaluation.json and (of rows) answers.jsonl, benchmarks.json and samples.jsonl, or judge.json and
judgments.jsonl, into a folder of its own. A judging that was stopped goes on in its folder.
"""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import sys
from typing import Any

from ftjax import config as configs
from ftjax.errors import UserError
from ftjax.runs import folder as folders
from scripts import cli


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    changes, rest = configs.overrides(argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="a file under configs/eval/, with arguments after a colon")
    parser.add_argument("--workdir", type=Path, help="a new folder; default runs/<date>-<time>-eval-<model>-<id>")
    flags = cli.parse(parser, rest)
    config = configs.override(configs.load(flags.config), changes)
    kind = next((name for name in ("judge", "harness", "text") if name in config), "rows")
    resume = kind == "judge" and _stopped(flags.workdir)
    if flags.workdir is not None and not resume and flags.workdir.is_dir() and any(flags.workdir.iterdir()):
        raise UserError(f"{flags.workdir} is not empty; give a new folder as --workdir, nothing is written over")
    folders.check(flags.workdir, resume)

    from ftjax import benchmarks, evaluation, experiment, judging, long_text
    from ftjax.runs import report

    experiment.use_compilation_cache()
    root, measure = {
        "judge": (judging, _judge), "harness": (benchmarks, _benchmark), "text": (long_text, _text),
        "rows": (evaluation, _measure),
    }[kind]  # fmt: skip
    built = root.build(config)
    folder = folders.create(
        flags.workdir,
        name=f"eval-{built.name}" if kind == "rows" else built.name,
        config=built.config,
        command=["python", "scripts/evaluate.py", *argv],
        resume=resume,
        may_change=judging.MAY_CHANGE if kind == "judge" else (),
    )
    with folder.owned():
        show = measure(root, built, folder, report)
        folder.done()
    show()
    return 0


def _stopped(workdir: Path | None) -> bool:
    """Tells whether a folder holds an evaluation that did not come to its end."""
    return workdir is not None and (workdir / "config.json").is_file() and not (workdir / "DONE").exists()


def _judge(root: Any, built: Any, folder: folders.Folder, report: Any) -> Any:
    report.say(f"{built.name} on {len(built.pairs):,} pairs, {sum(map(len, built.asked)):,} requests")
    found = root.measure(built, report.say, lambda rows: _lines(folder, "judgments.jsonl", rows))
    folder.json("judge.json", found)
    return lambda: report.judged(found, folder.path)


def _benchmark(root: Any, built: Any, folder: folders.Folder, report: Any) -> Any:
    report.say(f"{built.name} on {len(built.tasks)} tasks")
    found, rows = root.measure(built)
    _lines(folder, "samples.jsonl", rows)
    folder.json("benchmarks.json", found)
    return lambda: report.benchmarked(found, folder.path)


def _text(root: Any, built: Any, folder: folders.Folder, report: Any) -> Any:
    found = root.measure(built)
    folder.json("evaluation.json", found)
    return lambda: report.read_through(built.name, found["metrics"], root.in_words(found["protocol"]), folder.path)


def _measure(root: Any, built: Any, folder: folders.Folder, report: Any) -> Any:
    from ftjax import held_out
    from ftjax.runs import atomic

    report.say(built.data_report.as_text())
    report.say(f"measuring {built.name} on {built.held_out.rows:,} rows")
    found = root.measure(built)
    answers, numbers = held_out.shown(found.measured.answers), found.measured.numbers
    _lines(folder, "answers.jsonl", answers)
    _lines(folder, "held_out.jsonl", atomic.strict(root.lines(built, found)))
    folder.json("evaluation.json", root.facts(built, found))
    samples = answers[: built.config["eval"]["samples"]]
    return lambda: report.evaluated(
        built.name, numbers, samples, built.held_out.rows, root.in_words(built.protocol), folder.path
    )


def _lines(folder: folders.Folder, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    folder.text(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    sys.exit(cli.run(main))
