"""`data.py log`: the versions of a file."""

import argparse
import json


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file")
    parser.add_argument("--save", metavar="NOTE", help="first make a version of what the file holds now")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of text")


def run(arguments: argparse.Namespace) -> int:
    """Prints the versions of a file, newest first, and what it was made of; exits with 1 where it has changed since."""
    import shlex
    import sys

    from ftjax.data import check, rows, versions
    from scripts.verbs import _written

    if arguments.save is not None:
        data = rows.read(arguments.file)
        report = check.run(data, progress=lambda _: None)
        known = versions.history(arguments.file)
        made = versions.of_rows(
            versions.values(arguments.file),
            kind=_written.kind_of(data),
            command=shlex.join(["data.py", *sys.argv[1:]]),
            parents=[versions.Parent(arguments.file, known[-1].hash)] if known else [],
            note=arguments.save,
            findings={name: report.summary[name] for name in ("errors", "warnings", "notes")},
        )
        if not versions.save(arguments.file, made) and not arguments.json:
            print(f"{arguments.file} is its last version still; nothing was saved")
    changed = versions.changed(arguments.file)
    found = list(versions.lineage(arguments.file))
    if arguments.json:
        told = [{"depth": depth, "file": file, **one.as_dict()} for depth, file, one in found]
        print(
            json.dumps({"file": arguments.file, "changed": changed is not None, "versions": told}, ensure_ascii=False)
        )
        return int(changed is not None)
    for depth, file, one in found:
        print(f"{'  ' * depth}{file if depth else ''}{'  ' if depth else ''}{versions.told(one)}")
    if not found:
        print(f"{arguments.file} has no version; --save NOTE makes one")
    if changed:
        print(changed)
    return int(changed is not None)
