"""Measures a run, or a model with or without an adapter, on held-out rows: loss, perplexity, right answers.

python scripts/evaluate.py --config configs/eval/held_out.py:run=runs/NAME[,data=FILE]
python scripts/evaluate.py --config configs/eval/held_out.py:model=DIR[,adapter=DIR],data=FILE
                           [--config.section.key=value ...] [--workdir runs/NAME]

Writes evaluation.json and answers.jsonl into a folder of its own.
"""

import json
from pathlib import Path
import sys

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
    if flags.workdir is not None and flags.workdir.is_dir() and any(flags.workdir.iterdir()):
        raise UserError(f"{flags.workdir} is not empty; give a new folder as --workdir, nothing is written over")
    folders.check(flags.workdir, False)
    config = configs.override(configs.load(flags.config), changes)

    from ftjax import evaluation, experiment, held_out
    from ftjax.runs import report

    experiment.use_compilation_cache()
    built = evaluation.build(config)
    report.say(built.data_report.as_text())
    folder = folders.create(
        flags.workdir,
        name=f"eval-{built.name}",
        config=built.config,
        command=["python", "scripts/evaluate.py", *argv],
        resume=False,
        may_change=(),
    )
    try:
        report.say(f"measuring {built.name} on {built.held_out.rows:,} rows")
        numbers, given = evaluation.measure(built)
        answers = held_out.shown(given)
        folder.text("answers.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answers))
        folder.json("evaluation.json", evaluation.facts(built, numbers))
        folder.done()
    except BaseException as error:
        folder.failed(error)
        raise
    finally:
        folder.release()
    samples = answers[: built.config["eval"]["samples"]]
    report.evaluated(built.name, numbers, samples, built.held_out.rows, folder.path)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
