"""Scores completions with one or several reward models on one base.

python scripts/score.py --run DIR [--run DIR ..] [--weights 1 0.5] --input FILE --output FILE.jsonl
python scripts/score.py --model DIR --adapter DIR [--adapter DIR ..] --input FILE --output FILE.jsonl

Rows hold a prompt and a completion, messages whose last answer is the completion, or any form of preferences
(docs/formats.md). A row goes out as it came, with its "score", or with "scores" for several completions. Scores are
normalised by the score.json beside each adapter (--raw: not), and summed by weight, 1 unless given.
"""

import argparse
from pathlib import Path
import sys

import numpy as np

from scripts import cli


def flags(argv: list[str]) -> argparse.Namespace:
    """Returns the parsed flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--run", action="append", help="the run of a reward model; again for more models")
    parser.add_argument("--model", help="a base: a Hugging Face folder, or: base")
    parser.add_argument("--adapter", action="append", help="a PEFT folder of task SEQ_CLS on --model; again for more")
    parser.add_argument("--weights", type=float, nargs="+", help="of the models in the sum, in order; default: 1")
    parser.add_argument("--input", type=Path, required=True, help="prompts with completions, in any known format")
    parser.add_argument("--output", type=Path, required=True, help="a JSONL file; must not exist")
    parser.add_argument("--force", action="store_true", help="write over --output")
    parser.add_argument("--column", default="score", help="the column of the score; the rows must not have it")
    parser.add_argument("--raw", action="store_true", help="scores as the heads give them, not normalised")
    parser.add_argument("--truncate", action="store_true", help="cut prompts that are too long from the left")
    parser.add_argument("--template", help="with --model: a chat template by name or path; default: the model's own")
    parser.add_argument("--quant", default="none", help="with --model: its matrices in nf4, nf4-dq, int4, ..")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the weights in memory")
    return cli.parse(parser, argv)


def check(args: argparse.Namespace) -> None:
    """Raises on flags that do not go together, and on files that are not there or would be lost."""
    out, source = args.output, args.input
    cli.refuse(
        {
            "give --run DIR, or --model DIR with --adapter DIR": bool(args.run) == bool(args.model),
            "--adapter goes with --model; a --run has its own adapter": args.adapter and args.run,
            "--model needs --adapter DIR: a base has no reward head": args.model and not args.adapter,
            "--template goes with --model; a --run has its own": args.template and args.run,
            "--quant goes with --model; a --run has its own": args.quant != "none" and args.run,
            f"--output {out} is a folder; give a file": out.is_dir(),
            f"{out} exists; give a file that does not, or --force to write over it": out.exists() and not args.force,
            f"there is no folder for --output {out}; make it first": not out.absolute().parent.is_dir(),
            f"--output {out} is the --input; give another file": out.exists() and out.resolve() == source.resolve(),
        }
    )


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    args = flags(argv)
    check(args)

    from ftjax import experiment, inference, scoring

    experiment.use_compilation_cache()
    if args.run:
        scorer = scoring.load(args.run, weights=args.weights, dtype=args.dtype)
    else:
        scorer = scoring.load_adapters(
            args.model,
            args.adapter,
            template_name=args.template,
            quant=inference.Quant(args.quant),
            weights=args.weights,
            dtype=args.dtype,
        )
    rows, scores = scoring.score_file(
        scorer, args.input, args.output, column=args.column, raw=args.raw, truncate=args.truncate, say=print
    )
    spread = f"mean {np.mean(scores):.4g}, standard deviation {np.std(scores):.4g}"
    print(f"{len(scores):,} completions of {rows:,} rows scored ({spread}): {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
