"""Trains what a config describes, in a folder of its own.

python scripts/train.py --config configs/quickstart.py[:arg=value,flag] [--config.section.key=value ...]
                        [--workdir runs/NAME]
python scripts/train.py --workdir runs/NAME --resume      # go on where it stopped

On several hosts the same command on each, with a folder that all of them see:
python scripts/train.py ... --workdir DIR --coordinator HOST:PORT --processes 4 --process 0    # 1, 2, 3 on the others
python scripts/train.py ... --workdir DIR --coordinator auto    # on a TPU pod, under SLURM or Open MPI
"""

import argparse
import os
from pathlib import Path
import sys
from typing import Any

from ftjax import config as configs
from ftjax.errors import UserError
from ftjax.runs import folder as folders
from scripts import cli


def chosen(flags: argparse.Namespace) -> Any:
    """Returns the config that --config names, or without it that of the run to resume."""
    if flags.config is not None:
        return configs.load(flags.config)
    if not flags.resume:
        raise UserError("--config is missing; give a file under configs/, say --config configs/quickstart.py")
    return configs.load(f"{Path(__file__).parents[1] / 'configs/from_run.py'}:{flags.workdir}")


def stages(config: Any, flags: argparse.Namespace, argv: list[str]) -> int:
    """Runs a pipeline; returns the exit status."""
    from ftjax import pipeline
    from ftjax.runs import report

    workdir = flags.workdir or Path("runs") / Path(flags.config.partition(":")[0]).stem
    pipeline.train(config, workdir, ["python", "scripts/train.py", *argv], report.say)
    report.say(f"everything is in {workdir}")
    return 0


def main(argv: list[str]) -> int:
    """Returns the exit status: 0 when the run is done, or saved after a signal."""
    changes, rest = configs.overrides(argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", help="a file under configs/, with arguments after a colon")
    parser.add_argument("--workdir", type=Path, help="the run folder; default runs/<date>-<time>-<config>-<id>")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --workdir")
    parser.add_argument("--coordinator", default="", help="HOST:PORT of process 0 of several, or: auto")
    parser.add_argument("--processes", type=int, default=1, help="with --coordinator: how many there are")
    parser.add_argument("--process", type=int, default=0, help="with --coordinator: which of them this is")
    flags = cli.parse(parser, rest)
    if not flags.coordinator and (flags.processes, flags.process) != (1, 0):
        raise UserError("--processes and --process go with --coordinator; give HOST:PORT of process 0")
    config = configs.override(chosen(flags), changes)
    if "stages" in config and flags.coordinator:
        raise UserError("a pipeline is run by one process; leave out --coordinator, or train its stages one by one")
    if "stages" not in config and not flags.coordinator:
        folders.check(flags.workdir, flags.resume)

    from ftjax import experiment, hosts, pipeline, run
    from ftjax.runs import report

    if flags.coordinator:
        hosts.start(coordinator=flags.coordinator, processes=flags.processes, process=flags.process)
        hosts.of_first(lambda: folders.check(flags.workdir, flags.resume))
        if not hosts.is_first():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    experiment.use_compilation_cache()
    if pipeline.is_one(config):
        return stages(config, flags, argv)
    built = experiment.build(config)
    report.derived(built.derived, built.data.report.as_text())
    if flags.resume:
        run.check_same(built, flags.workdir)
    folder = run.folder_of_first(
        lambda: folders.create(
            flags.workdir,
            name=Path((flags.config or "").partition(":")[0]).stem,
            config=built.config,
            command=["python", "scripts/train.py", *argv],
            resume=flags.resume,
            may_change=experiment.MAY_CHANGE,
        )
    )
    report.say(f"run folder {folder.path}")
    with folder.owned():
        summary = run.train(built, folder, report.say)
    report.finished(summary, folder.path)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
