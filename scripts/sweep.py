"""Prints the command of every run of a sweep; --run N runs them, N at a time, and puts them into one table, plot, page.

python scripts/sweep.py --config configs/sweeps/lora.py[:arg=value] [--config.section.key=value ...]
                        [--workdir runs/NAME] [--run N]
python scripts/sweep.py --config "configs/sweeps/sizes.py:bases=DIR1;DIR2" --run 1 --bar 0.9

The config file's `get_sweep` says what each run changes; flags change all of them. Ctrl-C has every run save and stop;
the same command goes on: runs that are done are skipped, those that were stopped are resumed. A run that fails is named
and does not stop the others; it is tried again by the next call. At the end comparison/ has the verdict
(scripts/compare.py) against --baseline, by default the first run that is done. Exit status 1 when a run failed.
"""

from pathlib import Path
import shlex
import sys

from ftjax import config as configs
from ftjax.errors import UserError
from scripts import cli


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    common, rest = configs.overrides(argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="a file with get_sweep, with arguments after a colon")
    parser.add_argument("--workdir", type=Path, help="the folder of all runs; default runs/sweep-<config>")
    parser.add_argument("--run", type=int, default=0, metavar="N", help="run them, N at a time, each in a process")
    parser.add_argument("--here", action="store_true", help="run them in this process: no start-up, but no fence")
    parser.add_argument("--metric", default="after.eval_loss", help="of summary.json, for the plot")
    parser.add_argument("--baseline", help="name of the run that the others are compared with, or `base`")
    parser.add_argument("--bar", type=float, help="what the smallest capable model must reach")
    flags = cli.parse(parser, rest)
    cli.refuse(
        {
            f"--run {flags.run}: give how many at a time, at least 1": flags.run < 0,
            "--here runs one after another in this process; leave out --run or --here": flags.here and flags.run,
        }
    )
    folder = flags.workdir or Path("runs") / f"sweep-{Path(flags.config.partition(':')[0]).stem}"

    from ftjax import experiment, sweep
    from ftjax.runs import report, sweeps

    entries = sweep.plan(flags.config, common)
    if not (flags.run or flags.here):
        for name, changes in entries.items():
            words = sweep.words(flags.config, {**changes, **common}, folder / name, False)
            print(shlex.join(["python", *words]))
        return 0
    experiment.use_compilation_cache()
    train = sweep.in_this_process if flags.here else sweep.Apart(flags.run)
    try:
        rows = sweep.sweep(
            folder, flags.config, entries, common=common, train=train, metric=flags.metric, say=report.say
        )
    except sweep.InterruptedSweepError as stopped:
        report.say(f"{stopped}: saved; the same command goes on")
        return 130
    print(sweeps.markdown(rows))
    report.say(f"{folder}: table.md, table.csv, table.json, plot.png")
    done = [str(folder / row.name) for row in rows if row.status == "done"]
    try:
        compared(done, folder / "comparison", baseline=flags.baseline, bar=flags.bar)
    except UserError as error:
        report.say(f"no comparison: {error}")
    return 1 if any(row.status == "failed" for row in rows) else 0


def compared(runs: list[str], out: Path, *, baseline: str | None, bar: float | None) -> None:
    """Writes the comparison of runs, over that of an earlier call, and prints its verdict."""
    from ftjax.compare import findings, outputs, systems
    from ftjax.runs import report

    if baseline and baseline.partition(":")[0] == systems.BASE:
        runs = [baseline, *runs]
    found = systems.read(runs)
    told = findings.compare(
        found,
        systems.named(found, baseline or found[0].name),
        judges=[],
        people=[],
        bar=bar,
        force=False,
        level=findings.LEVEL,
        resamples=findings.RESAMPLES,
        seed=findings.SEED,
    )
    outputs.write(out, told)
    for line in (*told["notes"], *told["verdict"]):
        report.say(f"- {line}")
    report.say(f"{out}: {', '.join(outputs.FILES)}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
