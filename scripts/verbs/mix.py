"""`data.py mix`: one file of several."""

import argparse
from pathlib import Path

from ftjax import errors


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="data files of one kind")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="the file to write")
    parser.add_argument("--weights", help="share of each file, as 3,1 (default: as many rows as each has)")
    parser.add_argument("--rows", type=int, help="rows to write (default: as many as the weights allow)")
    parser.add_argument("--seed", type=int, default=0, help="which rows, and their order (default 0)")


def run(arguments: argparse.Namespace) -> None:
    """Mixes files in given shares, in a seeded order; a row that several files have is taken once."""
    from ftjax.data import mix, rows
    from scripts.verbs import _written

    _written.free(arguments.out)
    mix.refuse_twice(arguments.files)
    try:
        weights = [float(word) for word in arguments.weights.split(",")] if arguments.weights else None
    except ValueError:
        raise errors.UserError(f"--weights {arguments.weights!r} must be numbers with commas, as 3,1") from None
    parts = [rows.read(file) for file in arguments.files]
    mixed = mix.mix(parts, weights, count=arguments.rows, seed=arguments.seed)
    note = f"mixed {arguments.weights or 'by size'}"
    if mixed.shared:
        told = f"{mixed.shared:,} rows that a file before theirs has too were taken once"
        print(told)
        note += f"; {told}"
    _written.write(arguments.out, mixed.values, kind=_written.kind_of(parts[0]), parents=arguments.files, note=note)
