"""`data.py curve`: whether more rows would help."""

import argparse
from pathlib import Path

from ftjax import errors


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--config", required=True, help="as of scripts/train.py; --config.KEY=VALUE changes it")
    parser.add_argument("--sizes", help="rows, as 50,100,200 (default: 50,100,200,500,1000 as far as there are rows)")
    parser.add_argument("--seeds", type=int, default=3, help="runs at each size (default 3)")
    parser.add_argument("--metric", default="after.eval_loss", help="of summary.json (default after.eval_loss)")
    parser.add_argument("--worth", type=float, help="gain that twice the rows are worth (default: 1 %% of the metric)")
    parser.add_argument("--workdir", type=Path, help="the folder of all runs (default runs/curve-<config>)")
    parser.add_argument("--here", action="store_true", help="all runs in this process: no start-up, but no fence")


def run(arguments: argparse.Namespace) -> int:
    """Trains on growing parts of the config's data, and says whether it is enough, or what more would gain."""
    from ftjax import curve, experiment, sweep
    from ftjax.runs import report

    try:
        sizes = None if arguments.sizes is None else [int(word) for word in arguments.sizes.split(",")]
    except ValueError:
        raise errors.UserError(
            f"--sizes {arguments.sizes!r} must be whole numbers with commas, as 50,100,200"
        ) from None
    folder = arguments.workdir or Path("runs") / f"curve-{Path(arguments.config.partition(':')[0]).stem}"
    spec, common = arguments.config, arguments.changes
    made = curve.plan(folder, spec, common, sizes=sizes, seeds=arguments.seeds)
    experiment.use_compilation_cache()
    train = sweep.in_this_process if arguments.here else sweep.Apart(1)
    try:
        found = curve.run(
            folder, spec, common, made, train=train, metric=arguments.metric, worth=arguments.worth, say=report.say
        )
    except sweep.InterruptedSweepError as stopped:
        report.say(f"{stopped}: saved; the same command goes on")
        return 130
    report.say((folder / "curve.md").read_text(encoding="utf-8").rstrip())
    report.say(f"written: {folder}/curve.md, curve.json{', curve.png' if found.curve else ''}")
    return 0
