"""Trains what a config describes, in a folder of its own.

python scripts/train.py --config configs/quickstart.py[:arg=value,flag] [--config.section.key=value ...]
                        [--workdir runs/NAME] [--resume] [--debug]
"""

import argparse
from pathlib import Path
import sys
import traceback

from ftjax import config as configs
from ftjax.errors import UserError


def main(argv: list[str]) -> int:
    """Returns the exit status: 0 when the run is done or saved, 2 for a mistake that the user can mend."""
    changes, rest = configs.overrides(argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", required=True, help="a file under configs/, with arguments after a colon")
    parser.add_argument("--workdir", type=Path, help="the run folder; default runs/<date>-<time>-<config>-<id>")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --workdir")
    parser.add_argument("--debug", action="store_true", help="show the stack of an error")
    flags, unknown = parser.parse_known_args(rest)
    if unknown:
        known = ["--config", "--config.SECTION.KEY", "--workdir", "--resume", "--debug"]
        raise UserError(f"unknown flag {unknown[0]!r}.{configs.lookup.suggestion(unknown[0], known)}")
    config = configs.override(configs.load(flags.config), changes)

    from ftjax import experiment, run
    from ftjax.runs import folder as folders
    from ftjax.runs import report

    experiment.use_compilation_cache()
    built = experiment.build(config)
    report.derived(built.derived, built.data_report.as_text())
    name = Path(flags.config.partition(":")[0]).stem
    command = ["python", "scripts/train.py", *argv]
    folder = folders.create(
        flags.workdir,
        name=name,
        config=built.config,
        command=command,
        resume=flags.resume,
        may_change=experiment.MAY_CHANGE,
    )
    report.say(f"run folder {folder.path}")
    try:
        summary = run.train(built, folder, report.say)
    except BaseException as error:
        folder.failed(error)
        raise
    finally:
        folder.release()
    report.finished(summary, folder.path, flags.config)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
