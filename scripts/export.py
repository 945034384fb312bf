"""Writes what a run or adapters made in a format that others serve.

python scripts/export.py --run runs/NAME --format peft|merged --out DIR [--dtype bfloat16]
python scripts/export.py --model DIR --adapter DIR --format merged --out DIR
python scripts/export.py --combine runs/a=0.7,runs/b=0.3 [--rank 8] --format peft|merged --out DIR
python scripts/export.py --model TUNED --minus BASE --rank 16 --format peft --out DIR

--combine takes runs and PEFT folders over one base: "sum" adds their deltas exactly, the ranks add up; --rank cuts the
result by SVD and says what is lost; "linear" is PEFT's, which adds A and B apart. --minus makes an adapter of what two
whole models differ by. The adapter of a quantised run is merged into the weights as its base had them (--base dequant)
or as the checkpoint has them (--base original), with the largest difference of logits printed.
"""

import argparse
from pathlib import Path
import re
import shlex
import sys

from ftjax.errors import UserError
from scripts import cli

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def flags(argv: list[str]) -> argparse.Namespace:
    """Returns the parsed flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--run", help="a finished run")
    parser.add_argument("--model", help="a base (or, with --minus or alone, a whole model): a folder, or: base")
    parser.add_argument("--adapter", help="a PEFT folder, on top of --model")
    parser.add_argument("--combine", metavar="DIR=WEIGHT,...", help="runs or PEFT folders with their weights")
    parser.add_argument("--combination", choices=("sum", "linear"), help="of --combine; default: sum")
    parser.add_argument("--minus", help="a model that --model was trained from")
    parser.add_argument("--rank", type=int, help="cut the adapter to this rank")
    parser.add_argument("--template", help="a chat template by name or path; default: the run's, or the model's own")
    parser.add_argument("--format", required=True, choices=("peft", "merged"), help="an adapter, or a whole model")
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist or is empty")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of merged weights; default: float32"
    )
    parser.add_argument("--base", choices=("dequant", "original"), help="of a quantised run; default: dequant")
    parser.add_argument("--max-shard-size", metavar="SIZE", help="of merged weights, as 5GB or 500MB; default: 5GB")
    return cli.parse(parser, argv)


def nbytes(text: str) -> int:
    """Returns the bytes that "5GB" means."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMG]I?B)?", text.strip().upper())
    if found is None or float(found.group(1)) == 0:
        raise UserError(f"--max-shard-size {text!r} is no size; write 5GB or 500MB")
    return int(float(found.group(1)) * UNITS[found.group(2) or ""])


def check(args: argparse.Namespace) -> None:
    """Raises on flags that do not go together."""
    mistakes = {
        "give one of --run, --combine and --model": sum(map(bool, (args.run, args.combine, args.model))) == 0,
        "--run goes alone: it knows its base and its adapter": args.run and (args.combine or args.model),
        "--adapter goes with --model": args.adapter and (args.run or args.combine or not args.model),
        "--minus goes with --model": args.minus and (args.run or args.combine or args.adapter or not args.model),
        "--template goes with --model or --combine; a --run has its own": args.template and args.run,
        "--combination goes with --combine": args.combination and not args.combine,
        f"--rank {args.rank} must be at least 1": args.rank is not None and args.rank < 1,
    }
    merged_only = {"--dtype": args.dtype, "--base": args.base, "--max-shard-size": args.max_shard_size}
    mistakes |= {
        f"{name} goes with --format merged; an adapter has no base in it": value and args.format == "peft"
        for name, value in merged_only.items()
    }
    cli.refuse(mistakes)


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    args = flags(argv)
    check(args)
    shard = nbytes(args.max_shard_size or "5GB")

    from ftjax import export

    extra = {"template_name": args.template, "rank": args.rank}
    if args.run:
        asked = export.of_run(args.run, rank=args.rank)
    elif args.combine:
        combination = args.combination or "sum"
        asked = export.combined(args.combine, model=args.model, combination=combination, **extra)
    elif args.minus:
        asked = export.difference(args.model, minus=args.minus, **extra)
    else:
        asked = export.of_model(args.model, adapter=args.adapter, **extra)
    common = {"command": shlex.join(["python", "scripts/export.py", *argv]), "say": print}
    if args.format == "peft":
        export.peft(asked, args.out, **common)
    else:
        export.merged(asked, args.out, dtype=args.dtype, base=args.base, max_shard_bytes=shard, **common)
    print(f"{args.format} written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
