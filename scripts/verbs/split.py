"""`data.py split`: a file in parts that share no near-duplicate."""

import argparse
from pathlib import Path

from ftjax import errors


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file of any kind that training reads")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for NAME.jsonl of each part")
    parser.add_argument("--parts", default="train=0.9,test=0.1", help="names and shares (default train=0.9,test=0.1)")
    parser.add_argument("--by", metavar="COLUMN", help="rows with one value of this column stay together too")
    parser.add_argument("--clusters", type=int, metavar="N", help="rows of one of N clusters stay together too")
    parser.add_argument("--seed", type=int, default=0, help="order in which groups are dealt (default 0)")


def run(arguments: argparse.Namespace) -> None:
    """Splits a file so that rows which are nearly equal, ask the same or share a value of --by stay in one part."""
    from ftjax.data import rows, scored, split
    from scripts.verbs import _written

    shares = split.parse_shares(arguments.parts)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise errors.UserError(f"--out {arguments.out}: is a file; name a folder")
    places = {name: arguments.out / f"{name}.jsonl" for name in shares}
    if arguments.out.exists():
        _written.free(*places.values())
    data = rows.read(arguments.file)
    if arguments.clusters is not None:
        scored.attach(data)
        print(f"clusters by {'words (TF-IDF)' if data.vectors is None else 'embeddings of the model'}")
        if data.unscored is not None:
            print(data.unscored)
    parts = split.split(data, shares, seed=arguments.seed, by=arguments.by, clusters=arguments.clusters)
    arguments.out.mkdir(parents=True, exist_ok=True)
    _written.free(*places.values())
    print(f"{len(data.rows):,} rows in {parts.groups:,} groups of like rows, the largest of {parts.largest:,}")
    for name, values in parts.values.items():
        note = f"part {name} of {arguments.parts}"
        _written.write(places[name], values, kind=_written.kind_of(data), parents=[arguments.file], note=note)
