"""Writes a base in few bits into a folder that loads again at once, and says what that costs.

python scripts/quantize.py --model DIR --format nf4-dq --out DIR [--text FILE]
python scripts/quantize.py --model DIR --budget 4.5 --text FILE --out DIR
python scripts/quantize.py --model DIR --format nf4-dq --loftq 16 --out DIR

The folder goes wherever a model does: --model, --config.model.path. Printed, and kept in its quantization.json, are
bits a parameter (of bytes that are allocated) and errors of every weight, and perplexity before and after on a text:
a data file, or .txt; the embedded base has its own. --budget measures what each weight's bits change (KL from the
dense model, nats a token) and buys more bits where they undo most, among --format, int4, int8 and the weights as they
are. --loftq keeps beside the bits what they lost, of low rank, for --config.adapter.name=loftq.
"""

import argparse
import math
from pathlib import Path
import shlex
import sys

from scripts import cli

LEAVES = r"blocks\.\w+_proj"
SHARD = 5_000_000_000  # bytes


def flags(argv: list[str]) -> argparse.Namespace:
    """Returns the parsed flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--model", required=True, help="a dense checkpoint: a folder, a .gguf file, or: base")
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist or is empty")
    parser.add_argument("--format", help="nf4, nf4-dq, int4, ...; with --budget what it begins at (default: nf4-dq)")
    parser.add_argument("--budget", type=float, metavar="BITS", help="a parameter, over the leaves: mixed precision")
    parser.add_argument("--leaves", default=LEAVES, metavar="REGEX", help=f"paths; default: {LEAVES}")
    parser.add_argument("--group", type=int, default=0, metavar="N", help="inputs that share a scale; default: usual")
    parser.add_argument("--head", metavar="FORMAT", help="of the output layer, which stays dense else; int8 is safe")
    parser.add_argument("--embeddings", action="store_true", help="the embedding may be in few bits, if it is chosen")
    parser.add_argument(
        "--scale-search",
        action="store_true",
        help="clip groups where that lowers the error; nf4 and fp4 then no longer have bitsandbytes' codes",
    )
    parser.add_argument("--loftq", type=int, metavar="RANK", help="keep what the bits lose, of this rank")
    parser.add_argument("--iterations", type=int, metavar="N", help="of --loftq, 1 to 5 are usual; default: 1")
    parser.add_argument("--text", metavar="FILE", help="what perplexity is measured on")
    return cli.parse(parser, argv)


def check(args: argparse.Namespace) -> None:
    """Raises on flags that do not go together."""
    mistakes = {
        "give --format, or --budget": args.format is None and args.budget is None,
        f"--budget {args.budget} must be above 0": args.budget is not None and not 0 < args.budget < math.inf,
        f"--group {args.group} must be at least 2 (0: the format's own)": args.group < 0 or args.group == 1,
        f"--loftq {args.loftq} must be at least 1": args.loftq is not None and args.loftq < 1,
        f"--iterations {args.iterations} must be at least 1": args.iterations is not None and args.iterations < 1,
        "--iterations goes with --loftq": args.iterations is not None and args.loftq is None,
    }
    cli.refuse(mistakes)


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    args = flags(argv)
    check(args)

    from ftjax import experiment, quantization
    from ftjax.checkpoint import folders

    folders.refuse_content(args.out)
    experiment.use_compilation_cache()
    asked = quantization.ask(
        args.model,
        format=args.format or "nf4-dq",
        leaves=args.leaves,
        group=args.group,
        head=args.head,
        embeddings=args.embeddings,
        search=args.scale_search,
        rank=args.loftq or 0,
        iterations=args.iterations or 1,
        budget=args.budget,
        text=args.text,
    )
    command = shlex.join(["python", "scripts/quantize.py", *argv])
    report = quantization.write(asked, args.out, max_shard_bytes=SHARD, command=command, say=print)
    print("\n".join(quantization.as_lines(report)))
    print(f"written to {args.out}; try")
    print(f'  python scripts/generate.py --model {shlex.quote(str(args.out))} --prompt "..."')
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
