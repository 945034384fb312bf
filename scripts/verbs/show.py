"""`data.py show`: one version of a file."""

import argparse
import json

from ftjax import errors


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file")
    parser.add_argument("version", nargs="?", help="the first characters of its hash (default: the newest)")


def run(arguments: argparse.Namespace) -> None:
    """Prints all that is known of a version, as JSON."""
    from ftjax.data import versions

    known = versions.history(arguments.file)
    if not known:
        raise errors.UserError(f"{arguments.file} has no version; data.py log {arguments.file} --save NOTE makes one")
    found = [one for one in known if one.hash.startswith(arguments.version)] if arguments.version else known[-1:]
    if not found:
        shown = ", ".join(one.hash[: versions.SHORT] for one in known[-5:])
        raise errors.UserError(f"{arguments.file} has no version {arguments.version!r}; its last ones: {shown}")
    print(json.dumps(found[-1].as_dict(), indent=1, ensure_ascii=False))
