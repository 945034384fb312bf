"""Times training and decoding on a GPU or TPU: a Llama of random weights, dense or in few bits, made on the device.

python scripts/bench/accelerator.py --shape 8B --format nf4-dq              # QLoRA: tokens/s, memory, share of a matmul
python scripts/bench/accelerator.py --shape 8B --format none --rows 1 16    # decoding too, for 1 and 16 rows
python scripts/bench/accelerator.py --shape 70B --format nf4-dq --tokens 1024 --remat full

Training is LoRA (r 16 on all linears, AdamW) on one row of --tokens tokens, all of which count; its rate is set beside
a bfloat16 matmul in the same process. Decoding is greedy, 32 tokens in and --new out; what it must read (weights, in
the form that they have, without the embedding) over its time is set beside what a copy moves. `torch_peer.py` does the
same with PyTorch.
"""

import dataclasses
import functools
from pathlib import Path
import sys
import time

from scripts import cli
from scripts.bench import decode_kernel, step

PROMPT = 32


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shape", choices=step.SHAPES, default="1B")
    parser.add_argument("--format", default="nf4-dq", help="of the frozen base; none: bfloat16")
    parser.add_argument("--tokens", type=int, default=2048, help="a step; 0: no training")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="dots")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="of the batches to decode")
    parser.add_argument("--new", type=int, default=128, help="tokens to decode")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def made(config, plan):
    """Returns a base of random bfloat16 weights, a layer at a time into the form of the plan."""
    import jax
    import jax.numpy as jnp

    from ftjax import tree
    from ftjax.models import params
    from ftjax.quant import convert

    def leaf(path, shape):
        if path.endswith("norm"):
            return jnp.ones(shape, jnp.bfloat16)
        few = plan.get(path)
        form = functools.partial(convert.module(few.format).quantize, group=few.group) if few else None
        form = form or (lambda w: w.astype(jnp.bfloat16))
        one = lambda key: form(shape[-2] ** -0.5 * jax.random.normal(key, shape[-2:], jnp.float32))
        key = tree.fold(jax.random.key(0), path)
        return jax.jit(one if len(shape) == 2 else lambda key: jax.lax.map(one, jax.random.split(key, shape[0])))(key)

    shapes = {path: leaf.shape for path, leaf in tree.paths(params.abstract(config, "bfloat16")).items()}
    return params.from_paths({path: leaf(path, shape) for path, shape in shapes.items()})


def ceilings():
    """Returns FLOP/s of a bfloat16 matmul of 8192^3, and bytes/s that a copy of 1 GiB reads and writes."""
    import jax
    import jax.numpy as jnp

    x = jax.random.normal(jax.random.key(0), (8192, 8192), jnp.bfloat16)
    product = decode_kernel.seconds(jax.jit(lambda x: x @ x), x, repeats=10)
    return 2 * 8192**3 / product, decode_kernel.copied(10)


def peak():
    """Returns the most GiB that arrays took on the device so far, or None where it does not tell."""
    import jax

    told = jax.devices()[0].memory_stats() or {}
    return told["peak_bytes_in_use"] / 2**30 if "peak_bytes_in_use" in told else None


def train(args, config, base, matmul):
    """Returns the figures of LoRA steps."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ftjax.data import batch as batches
    from ftjax.data import encode
    from ftjax.train import state
    from ftjax.train import step as steps
    from scripts.bench import workload

    algorithm, update, schedule = workload.training(config, step.RANK, step.ALPHA, step.RATE, False)
    full = np.r_[0, np.ones(args.tokens - 1, np.uint8)].astype(np.uint8)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, args.tokens).astype(np.int32)
    row = batches.pad_rows([encode.Example(ids, full, "random")], length=args.tokens)
    begin = lambda base: state.init(algorithm.init(jax.random.key(1), base), update, jax.random.key(2))
    trained = jax.jit(begin)(base)
    case = workload.Case(config=config, base=base, state=trained, step=None, batches=[row])
    flops = workload.flops_a_token(config, case) * args.tokens
    limit, began = jnp.float32(jnp.inf), time.perf_counter()
    program = jax.jit(steps.make(algorithm, update, schedule, microbatches=1), donate_argnums=0)
    program = program.lower(trained, base, row, limit).compile()
    compiled, row = time.perf_counter() - began, jax.tree.map(jnp.asarray, row)
    losses, times = [], []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        trained, metrics = program(trained, base, row, limit)
        losses.append(float(metrics["loss"]))
        times.append(time.perf_counter() - start)
    second = sorted(times[1:])[args.steps // 2]
    return {
        "loss": [losses[0], losses[-1]],
        "step_seconds": second,
        "tokens_per_second": args.tokens / second,
        "tflops": flops / second / 1e12,
        "share_of_matmul": flops / second / matmul,
        "compile_seconds": compiled,
        "temporary_gib": program.memory_analysis().temp_size_in_bytes / 2**30,
        "peak_gib": peak(),
    }


def decode(args, config, base, rows, copy):
    """Returns the figures of decoding a batch."""
    import jax
    import numpy as np

    from ftjax import tree
    from ftjax.sampling import generate

    prompts = np.random.default_rng(0).integers(0, config.vocab_size, (rows, PROMPT)).tolist()
    settings = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop_ids": ()}
    ask = lambda: generate.generate(base, prompts, jax.random.key(0), config, max_new_tokens=args.new, **settings)
    began = time.perf_counter()
    jax.block_until_ready(ask())
    first = time.perf_counter() - began
    spent = decode_kernel.seconds(lambda: ask().tokens, repeats=3)
    read = tree.nbytes(base) - (0 if config.tie_embeddings else base.embed_tokens.nbytes)
    return {
        "rows": rows,
        "ms_a_token": spent / args.new * 1e3,
        "tokens_per_second": rows * args.new / spent,
        "gb_per_second": read * args.new / spent / 1e9,
        "share_of_copy": read * args.new / spent / copy,
        "first_seconds": first,
    }


def main(argv):
    """Prints the figures and returns the exit status."""
    args = flags(argv)
    import jax

    from ftjax import tree
    from scripts.bench import workload

    config = workload.shaped(step.SHAPES[args.shape], "bfloat16", args.remat, 1)
    config = dataclasses.replace(config, max_position=max(config.max_position, args.tokens))
    began = time.perf_counter()
    base = jax.block_until_ready(made(config, workload.planned(config, args.format)))
    matmul, copy = ceilings()
    found = {"device": jax.devices()[0].device_kind, "shape": args.shape, "format": args.format, "remat": args.remat}
    found |= {"jax": jax.__version__, "making_seconds": time.perf_counter() - began}
    found |= {
        "weights_gib": tree.nbytes(base) / 2**30,
        "matmul_tflops": matmul / 1e12,
        "copy_gb_per_second": copy / 1e9,
    }
    print(found, flush=True)
    if args.tokens:
        found["train"] = {"tokens": args.tokens} | train(args, config, base, matmul)
        print(found["train"], flush=True)
    found["decode"] = []
    for rows in args.rows:
        found["decode"].append(decode(args, config, base, rows, copy))
        print(found["decode"][-1], flush=True)
    cli.append(args.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
