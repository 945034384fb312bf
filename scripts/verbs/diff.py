"""`data.py diff`: what two files differ in."""

import argparse
import json


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("first", help="the older file")
    parser.add_argument("second", help="the newer file")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of text")


def run(arguments: argparse.Namespace) -> int:
    """Prints rows added, removed and changed, word by word, and statistics; exits with 1 where the files differ."""
    from ftjax.data import difference, rows

    first, second = rows.read(arguments.first), rows.read(arguments.second)
    found = difference.between(first, second)
    print(json.dumps(found.as_dict(), ensure_ascii=False) if arguments.json else found.as_text(first, second))
    return int(bool(found.added or found.removed or found.changed))
