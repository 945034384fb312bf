"""Answers a prompt, a chat, or every line of a JSONL file.

python scripts/generate.py --run runs/NAME | --model DIR [--adapter DIR]
                           --prompt "..." | --chat | --input FILE.jsonl --output FILE.jsonl
"""

import argparse
from pathlib import Path
import sys
from typing import Any

from ftjax.errors import UserError
from scripts import cli


def flags(argv: list[str]) -> argparse.Namespace:
    """Returns the parsed flags."""
    parser = cli.parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="a run folder: its base with its adapter")
    source.add_argument("--model", help="a Hugging Face folder, or: base")
    parser.add_argument("--adapter", help="a PEFT folder, on top of --model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="one question")
    what.add_argument("--chat", action="store_true", help="a conversation on the terminal")
    what.add_argument("--input", type=Path, help="JSONL with messages or prompt")
    parser.add_argument("--output", type=Path, help="where the answers to --input go; must not exist")
    parser.add_argument("--column", default="answer", help="the column of the answers; the rows must not have it")
    parser.add_argument("--system", help="a system message in front")
    parser.add_argument("--template", help="a chat template by name or path; default: the model's own")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the most likely token")
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--min-p", type=float, default=0.0, help="least probability, as a share of the likeliest's")
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--stop", action="append", default=[], help="a text that ends an answer; may be given often")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16, help="prompts of --input at a time")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the weights in memory")
    parser.add_argument("--quant", default="none", help="with --model: its matrices in nf4, nf4-dq, int4, ..")
    return cli.parse(parser, argv)


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    args = flags(argv)
    out, source = args.output, args.input
    mistakes = {
        "--adapter goes with --model; a --run has its own adapter": args.adapter and args.run,
        "--template goes with --model; a --run has its own": args.template and args.run,
        "--quant goes with --model; a --run has its own": args.quant != "none" and args.run,
        "--input needs --output FILE.jsonl, and the other way round": (source is None) != (out is None),
        f"{out} exists; give a file that does not, nothing is written over": out and out.exists(),
        f"there is no folder for --output {out}; make it first": out and not out.absolute().parent.is_dir(),
        f"{source} is no file; give a JSONL file as --input": source and not source.is_file(),
        f"--batch {args.batch} must be at least 1": args.batch < 1,
        f"--seed {args.seed} must be from 0 to 4294967295": not 0 <= args.seed < 1 << 32,
    }
    for mistake, made in mistakes.items():
        if made:
            raise UserError(mistake)

    from ftjax import answering, experiment, inference
    from ftjax.data import records
    from ftjax.data.records import Message

    experiment.use_compilation_cache()
    asked = inference.Made(args.model, args.adapter, args.template, inference.Quant(args.quant))
    model = inference.load_made(inference.made_by(args.run) if args.run else asked, dtype=args.dtype)
    start = [Message(role="system", content=args.system)] if args.system else []
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    sampling = {"stop_strings": args.stop, **{name: getattr(args, name) for name in names}}

    def ask(chats: list[list[Message]], seed: int) -> list[str]:
        return model.complete([model.prompt_ids(chat) for chat in chats], seed=seed, **sampling)

    if args.prompt is not None:
        records.text(args.prompt, "text", "--prompt")
        print(ask([[*start, Message(role="user", content=args.prompt)]], args.seed)[0])
    elif args.chat:
        talk(ask, start, args.seed)
    else:
        columns = {"column": args.column, "batch_size": args.batch, "seed": args.seed}
        refuse = lambda chat: model.refuse(chat, args.max_new_tokens)
        count = answering.answer(ask, refuse, start, source, out, **columns)
        print(f"{count:,} answers in {out}")
    return 0


def talk(ask: Any, turns: list[Any], seed: int) -> None:
    """Reads questions until the end of input or an empty line, and answers each with all turns before it."""
    from ftjax.data.records import Message

    print("empty line: end")
    while True:
        try:
            text = input("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            text = ""
        if not text:
            return
        turns = [*turns, Message(role="user", content=text)]
        answer = ask([turns], seed + len(turns))[0]
        print(f"model> {answer}")
        turns = [*turns, Message(role="assistant", content=answer)]


if __name__ == "__main__":
    sys.exit(cli.run(main))
