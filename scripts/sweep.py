"""Runs every configuration of a sweep, one after another, and puts their numbers into one table and one plot.

python scripts/sweep.py --config configs/sweeps/lora.py[:arg=value] [--config.section.key=value ...]
                        [--workdir runs/NAME]
python scripts/sweep.py --config configs/sweeps/lora.py --list     # the command of each run, and nothing else

The config file's `get_sweep` says what each run changes; flags change all of them. The same command goes on after a
kill: runs that are done are skipped, the one that was stopped is resumed. A run that fails does not stop the others;
it is tried again by the next call. Exit status 1 when a run failed.
"""

from pathlib import Path
import shlex
import sys

from ftjax import config as configs
from scripts import cli


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    common, rest = configs.overrides(argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="a file with get_sweep, with arguments after a colon")
    parser.add_argument("--workdir", type=Path, help="the folder of all runs; default runs/sweep-<config>")
    parser.add_argument("--metric", default="after.eval_loss", help="of summary.json, for the plot")
    parser.add_argument("--here", action="store_true", help="all runs in this process: no start-up, but no fence")
    parser.add_argument("--list", action="store_true", help="print the command of each run")
    flags = cli.parse(parser, rest)
    folder = flags.workdir or Path("runs") / f"sweep-{Path(flags.config.partition(':')[0]).stem}"

    from ftjax import experiment, sweep
    from ftjax.runs import report, sweeps

    entries = sweep.plan(flags.config, common)
    if flags.list:
        for name, changes in entries.items():
            words = sweep.words(flags.config, {**changes, **common}, folder / name, False)
            print(shlex.join(["python", *words]))
        return 0
    experiment.use_compilation_cache()
    try:
        rows = sweep.sweep(
            folder,
            flags.config,
            entries,
            common=common,
            launch=sweep.train_here if flags.here else sweep.train_apart,
            metric=flags.metric,
            say=report.say,
        )
    except sweep.InterruptedSweepError as stopped:
        report.say(f"{stopped} is saved; the same command goes on with it")
        return 130
    print(sweeps.markdown(rows))
    report.say(f"{folder}: table.md, table.csv, table.json, plot.png")
    return 1 if any(row.status == "failed" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
