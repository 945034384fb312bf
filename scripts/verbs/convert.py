"""`data.py convert`: the rows of a file in another format."""

import argparse
from pathlib import Path


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file of any kind that training reads")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="messages, openai, sharegpt, alpaca, question, "
                        "completion, text; trl, openai-pairs, ranked, labelled")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="the file to write")
    parser.add_argument("--drop", default="", metavar="KEY,...", help="keys inside of messages that may be left behind")
    parser.add_argument("--columns", help="names of columns, as prompt=question,completion=reply")


def run(arguments: argparse.Namespace) -> None:
    """Writes a file in another format, without loss or not at all: each row must read as the same record again."""
    from ftjax.data import convert, rows
    from scripts.verbs import _written

    _written.free(arguments.out)
    columns = rows.parse_columns(arguments.columns) if arguments.columns else None
    data = rows.read(arguments.file, columns=columns)
    values = convert.convert(data, arguments.to, drop=[key.strip() for key in arguments.drop.split(",")])
    note = f"converted to {arguments.to}"
    _written.write(arguments.out, values, kind=_written.kind_of(data), parents=[arguments.file], note=note)
