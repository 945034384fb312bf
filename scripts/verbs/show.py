"""`data.py show`: one version of a file, or one of its rows and the runs that read it."""

import argparse
import json
from pathlib import Path
import sys

from ftjax import errors


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file")
    parser.add_argument("version", nargs="?", help="the first characters of its hash (default: the newest)")
    parser.add_argument("--row", type=int, metavar="LINE", help="show this row in place of a version")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="with --row: which runs in DIR read the row")
    parser.add_argument("--json", action="store_true", help="with --row: print one JSON object in place of text")


def run(arguments: argparse.Namespace) -> None:
    """Prints all that is known of a version, as JSON; with --row a row, and with --runs which runs read it.

    A row is known by its content: where it stood, and in which file, does not matter.
    """
    from ftjax.data import versions

    if arguments.row is not None:
        return _row(arguments)
    if arguments.runs is not None or arguments.json:
        raise errors.UserError("--runs and --json go with --row LINE; data.py log FILE --runs DIR asks by version")
    gone, known = versions.gone(arguments.file), versions.history(arguments.file)
    if not known:
        raise errors.UserError(f"{arguments.file} has no version; data.py log {arguments.file} --save NOTE makes one")
    one = known[-1] if arguments.version is None else versions.named(arguments.file, known, arguments.version)
    print(json.dumps(one.as_dict(), indent=1, ensure_ascii=False))
    if gone:
        print(f"{arguments.file} is gone; its versions are still there", file=sys.stderr)


def _row(arguments: argparse.Namespace) -> None:
    """Prints a row, and what runs say of it."""
    from ftjax.data import used

    if arguments.version is not None:
        raise errors.UserError("--row LINE shows a row of the file as it is; leave out the version")
    value = used.row_at(arguments.file, arguments.row)
    found = None if arguments.runs is None else used.of_row(arguments.runs, arguments.file, arguments.row, value)
    if arguments.json:
        told = {"file": arguments.file, "line": arguments.row, "row": value}
        print(json.dumps(told | ({} if found is None else found.as_dict()), ensure_ascii=False, default=str))
        return
    print(used.shown(arguments.file, arguments.row, value))
    if found is not None:
        print(found.as_text())
