"""`data.py log`: the versions of a file."""

import argparse
import json
from pathlib import Path


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file")
    parser.add_argument("--save", metavar="NOTE", help="first make a version of what the file holds now")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="also name the runs in DIR that read each version")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of text")


def run(arguments: argparse.Namespace) -> int:
    """Prints the versions of a file, newest first, and what it was made of; exits with 1 where it has changed since.

    Versions of a file that is gone are printed too, and that it is gone.
    """
    from ftjax.data import check, rows, used, versions
    from scripts.verbs import _written

    if arguments.save is not None:
        data = rows.read(arguments.file)
        version = _written.begun(data, arguments.save)
        said = _written.noted(version, data, check.run(data, progress=lambda _: None))
        if not arguments.json:
            print(said)
    gone, changed = versions.gone(arguments.file), versions.changed(arguments.file)
    found = list(versions.lineage(arguments.file))
    now, read, silent = None, {}, []
    if arguments.runs is not None:
        now = None if gone else versions.now(arguments.file)
        asked = [one.hash for _, _, one in found]
        read, silent = used.of_file(arguments.runs, asked if now is None else [now, *asked])
    if arguments.json:
        told: dict = {"file": arguments.file, "changed": changed is not None, "gone": gone}
        told["versions"] = [{"depth": depth, "file": file, **one.as_dict()} for depth, file, one in found]
        if arguments.runs is not None:
            told |= {"hash": now, "runs": read, "silent": silent}
        print(json.dumps(told, ensure_ascii=False))
        return int(changed is not None)
    for depth, file, one in found:
        print(f"{'  ' * depth}{file if depth else ''}{'  ' if depth else ''}{versions.told(one)}")
        for run in read.pop(one.hash, ()):
            print(f"{'  ' * depth}  read by {run}")
    for run in read.pop(now, ()):
        print(f"what it holds now was read by {run}")
    if silent:
        print(used.unknown(silent))
    if not found:
        print(f"{arguments.file} has no version; --save NOTE makes one")
    if changed:
        print(changed)
    return int(changed is not None)
