"""Times decoding: tokens per CPU-second without the reading of prompts, and the matmuls of a step alone beside it.

python scripts/bench/generate.py --shape S                                # greedy, 16 prompts of 64, 64 new tokens
python scripts/bench/generate.py --shape S --quant nf4-dq                 # over a base in few bits
python scripts/bench/generate.py --shape S --lora --temperature 1         # as a policy samples; --merged: dense first

One pinned core, as in `step.py`. Random weights and prompts unless --model and --data. No token stops a row. A round
generates 1 token and then --new of them; the difference is what decoding took, as in the peers' `hf_generate.py`.
"""

import json
from pathlib import Path
import statistics
import sys
import time

from scripts import cli
from scripts.bench import step


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shape", choices=step.SHAPES, default="S")
    parser.add_argument("--model", type=Path, help="a model folder instead of random weights")
    parser.add_argument("--data", type=Path, help="with --model: rows (messages) whose second message begins a prompt")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=1, help="of each prompt; --batch counts prompts")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--quant", default="none", help="the format of the base; groups of 64, or what divides")
    parser.add_argument("--lora", action="store_true", help="attach an adapter of rank 16 on all linears")
    parser.add_argument("--merged", action="store_true", help="put base and adapter together into dense weights first")
    parser.add_argument("--cores", type=int, default=1, help="0: all")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def prompts_of(args, vocabulary):
    """Returns prompts of one length: the beginnings of rows of --data, or random ones."""
    import numpy as np

    if args.data is None:
        return np.random.default_rng(0).integers(0, vocabulary, (args.batch, args.prompt)).tolist()
    from ftjax.data import files, tokenizer

    rows, tok = (json.loads(line) for _, line in files.lines(args.data)), tokenizer.load(args.model)
    ids = (tok.encode(row["messages"][1]["content"]).ids for row in rows)
    return [one[: args.prompt] for one in ids if len(one) >= args.prompt][: args.batch]


def model_of(args):
    """Returns config and weights that the flags describe."""
    import jax

    from ftjax.adapters import attach, merge
    from scripts.bench import workload

    args.remat, args.unroll = "none", 1
    config, base = workload.model(args, step.SHAPES[args.shape])
    adapters = None
    if args.lora:
        plain, *_ = workload.training(config, step.RANK, step.ALPHA, step.RATE, False)
        adapters = plain.init(jax.random.key(1), base)
    return config, merge.merge(base, adapters) if args.merged else attach.attach(base, adapters)


def matmuls(params, config, rows, steps):
    """Returns a program of as many steps of nothing but the products of one token a row with all projections."""
    import jax

    from ftjax.nn import embedding
    from ftjax.nn.matmul import matmul

    def layer(x_BTD, block):
        inner = sum(matmul(x_BTD, getattr(block, f"{name}_proj")) for name in ("gate", "up"))
        q, k, v = (matmul(x_BTD, getattr(block, f"{name}_proj")) for name in "qkv")
        out = matmul(q, block.o_proj) + matmul(inner, block.down_proj) + k[..., :1] + v[..., :1]
        return x_BTD + 1e-3 * out, None  # all are needed, and the numbers stay where they were

    def one(_, carry):
        x_BTD, params = carry
        x_BTD, _ = jax.lax.scan(layer, x_BTD, params.blocks)
        head, tied = embedding.head(params.lm_head, params.embed_tokens)
        logits = embedding.unembed(head, x_BTD) if tied else matmul(x_BTD, head)
        return x_BTD + 1e-6 * logits[..., :1].astype(x_BTD.dtype), params

    x_BTD = jax.random.normal(jax.random.key(0), (rows, 1, config.d_model), config.dtype)
    program = jax.jit(lambda x_BTD, params: jax.lax.fori_loop(0, steps, one, (x_BTD, params))[0])
    return lambda: program(x_BTD, params)


def timed(run):
    """Returns (wall, CPU) seconds of a call."""
    import jax

    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(args):
    """Returns the figures: the median of the rounds, each of which has every program once."""
    import jax

    from ftjax.sampling import generate

    config, params = model_of(args)
    prompts = prompts_of(args, config.vocab_size)
    settings = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "samples": args.samples}
    ask = lambda new: generate.generate(
        params, prompts, jax.random.key(0), config, max_new_tokens=new, stop_ids=(), **settings
    )
    rows = len(prompts) * args.samples
    programs = [lambda: ask(1), lambda: ask(args.new), matmuls(params, config, rows, args.new - 1)]
    compiling = [timed(program)[0] for program in programs]
    rounds = [[timed(program) for program in programs] for _ in range(args.rounds)]
    decoded = rows * (args.new - 1)
    middle = lambda figure: statistics.median(figure(*each) for each in rounds)
    return {
        "decode_tok_s": middle(lambda first, whole, _: decoded / (whole[0] - first[0])),
        "decode_tok_cpu_s": middle(lambda first, whole, _: decoded / (whole[1] - first[1])),
        "prefill_tok_s": middle(lambda first, *_: len(prompts) * args.prompt / first[0]),
        "prefill_tok_cpu_s": middle(lambda first, *_: len(prompts) * args.prompt / first[1]),
        "step_ms": middle(lambda first, whole, _: (whole[1] - first[1]) / (args.new - 1) * 1e3),
        "matmuls_ms": middle(lambda _, __, alone: alone[1] / (args.new - 1) * 1e3),
        "over_matmuls": middle(lambda first, whole, alone: (whole[1] - first[1]) / alone[1]),
        "compile_s": compiling[1],
    }


def main(argv):
    """Prints the result and returns the exit status."""
    args = flags(argv)
    cli.refuse({f"--new {args.new} must be at least 2": args.new < 2})
    step.pin(args.cores)
    result = measure(args)
    result |= {"shape": args.shape if args.model is None else str(args.model), "flags": " ".join(argv)}
    step.show(result)
    cli.append(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
