"""`data.py select`: the rows that are worth training on."""

import argparse
from pathlib import Path


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file of any kind that training reads, or world:TASK/split")
    parser.add_argument("--keep", metavar="EXPRESSION", help='for example "not handled and ifd < 1"')
    parser.add_argument("--top", type=int, metavar="N", help="of these, the N rows of the largest --by")
    parser.add_argument("--by", metavar="COLUMN", help="a column of the scores")
    parser.add_argument("--diverse", type=int, metavar="N", help="of these, N rows that stand for all")
    parser.add_argument("--method", default="facility_location", help="of --diverse: facility_location, k_centre")
    parser.add_argument("--seed", type=int, default=0, help="between equals, and where k_centre begins (default 0)")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="default: FILE.scores.parquet, beside FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="the file to write")


def run(arguments: argparse.Namespace) -> None:
    """Writes the rows that are left by an expression over scores and findings, by rank, and by diversity."""
    from ftjax import errors
    from ftjax.data import selection
    from scripts.verbs import _written

    _written.free(arguments.out)
    wanted = selection.Wanted(**{name: getattr(arguments, name) for name in selection.Wanted._fields})
    if not any(getattr(wanted, name) is not None for name in ("keep", "top", "diverse")):
        raise errors.UserError("give --keep EXPRESSION, --top N --by COLUMN, or --diverse N; several are one by one")
    chosen = selection.choose(arguments.file, wanted, scores_at=arguments.scores)
    print("\n".join(chosen.told))
    if not chosen.values:
        raise errors.UserError(f"no row of {arguments.file} is left, so nothing is written; keep more")
    kind, note = _written.kind_of(chosen), f"selected: {'; '.join(chosen.told)}"
    _written.write(arguments.out, chosen.values, kind=kind, parents=[arguments.file], note=note)
