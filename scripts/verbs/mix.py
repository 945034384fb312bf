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
    """Mixes files in given shares, no row twice, in a seeded order."""
    from ftjax.data import mix, rows
    from scripts.verbs import _written

    _written.free(arguments.out)
    parts = [rows.read(file) for file in arguments.files]
    try:
        words = arguments.weights.split(",") if arguments.weights else [len(part.rows) for part in parts]
        weights = [float(word) for word in words]
    except ValueError:
        raise errors.UserError(f"--weights {arguments.weights!r} must be numbers with commas, as 3,1") from None
    values = mix.mix(parts, weights, count=arguments.rows, seed=arguments.seed)
    note = f"mixed {arguments.weights or 'by size'}"
    _written.write(arguments.out, values, kind=_written.kind_of(parts[0]), parents=arguments.files, note=note)
