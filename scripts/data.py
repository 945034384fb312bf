"""Look at data files before training on them, check them, and make new ones of them.

python scripts/data.py check chats.jsonl
python scripts/data.py check chats.jsonl --model MODEL_DIR --against test.jsonl --strict --fix
python scripts/data.py preview chats.jsonl --model MODEL_DIR
python scripts/data.py preview world:format/train --model ftjax/assets/base --rows 5 --html preview.html
python scripts/data.py VERB --help

A verb is a module of scripts/verbs/.
"""

import argparse
import importlib
import os
from pathlib import Path
import pkgutil
import sys

from ftjax import config as configs
from ftjax import errors
from scripts import cli

_FOLDER = str(Path(__file__).parent / "verbs")
VERBS = sorted(entry.name for entry in pkgutil.iter_modules([_FOLDER]) if not entry.name.startswith("_"))


def main(argv: list[str]) -> int:
    """Runs one verb and returns the exit status: what the verb returns, or 2 with one line for a user's mistake."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in VERBS:
        module = importlib.import_module(f"scripts.verbs.{name}")
        first = module.run.__doc__.partition("\n")[0]
        verb = verbs.add_parser(name, help=first, description=module.run.__doc__)
        module.declare(verb)
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
        verb.set_defaults(run=module.run)
    try:
        changes, rest = configs.overrides(argv)
        arguments = parser.parse_args(_joined(rest))
        if getattr(arguments, "seed", 0) < 0:
            raise errors.UserError(f"--seed {arguments.seed} must be at least 0")
        if changes and arguments.verb != "curve":
            raise errors.UserError(f"--config.{next(iter(changes))} is for curve; {arguments.verb} has no config")
        arguments.changes = changes
        return arguments.run(arguments) or 0
    except errors.UserError as mistake:
        if "--debug" in argv:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except OSError as bad:  # a full disk, a closed pipe, no permission
        if "--debug" in argv:
            raise
        if isinstance(bad, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the last flush complain
        else:
            print(f"error: {bad.filename or 'output'}: {bad.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _joined(words: list[str]) -> list[str]:
    """Returns the words, an expression of --keep that begins with a minus as --keep=EXPRESSION: else it is a flag."""
    found: list[str] = []
    for word in words:
        if found[-1:] == ["--keep"] and word.startswith("-") and not word.startswith("--"):
            found[-1] = f"--keep={word}"
        else:
            found.append(word)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
