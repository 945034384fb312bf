"""Prints bytes of a LoRA step by role, as `ftjax.planner` predicts them, beside what XLA's compiler allocates.

python scripts/bench/memory.py --shapes S M 1B 8B 70B
python scripts/bench/memory.py --shapes 8B --settings "nf4-dq, remat full" --rows 1 --length 2048

Nothing is allocated: base, state and batch are shapes, and the step is compiled for them. A setting is a format of the
frozen base and a rule of recomputing; weights that are not quantised are bfloat16, activations --dtype, LoRA r 16 on
all linears, AdamW. On a CPU XLA keeps a float32 copy of every bfloat16 residual, so the default is float32.
"""

import sys
import time

from scripts import cli
from scripts.bench import step

SETTINGS = {  # format, remat
    "nf4-dq, remat dots": ("nf4-dq", "dots"),
    "nf4-dq, remat full": ("nf4-dq", "full"),
    "nf4-dq, remat none": ("nf4-dq", "none"),
    "bfloat16, remat dots": ("none", "dots"),
}


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=step.SHAPES, default=["S"])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    return cli.parse(parser, argv)


def compare(shape, setting, rows, length, dtype):
    """Returns (bytes by role, bytes that the compiled step takes)."""
    import jax

    from ftjax import planner
    from ftjax.data import batch as batches
    from ftjax.models import params
    from ftjax.quant import convert
    from ftjax.train import state as states
    from ftjax.train import step as steps
    from scripts.bench import workload

    name, remat = SETTINGS[setting]
    config = workload.shaped(step.SHAPES[shape], dtype, remat, 1)
    base = params.abstract(config, "bfloat16")
    base = convert.abstract_tree(base, workload.planned(config, name))
    algorithm, update, schedule = workload.training(config, step.RANK, step.ALPHA, step.RATE, False)
    make = lambda base: states.init(algorithm.init(jax.random.key(1), base), update, jax.random.key(2))
    state = jax.eval_shape(make, base)
    tokens = lambda kind: jax.ShapeDtypeStruct((rows, length), kind)
    batch = batches.SFTBatch(*(tokens(kind) for kind in ("int32", "int32", "float32", "int32", "int32")))
    limit = jax.ShapeDtypeStruct((), "float32")
    run = jax.jit(steps.make(algorithm, update, schedule, microbatches=1), donate_argnums=0)
    found = run.lower(state, base, batch, limit).compile().memory_analysis()
    fresh = found.output_size_in_bytes - found.alias_size_in_bytes
    measured = found.argument_size_in_bytes + found.temp_size_in_bytes + fresh
    return planner.predict(config, base, state, rows=rows, length=length), measured


def main(argv):
    """Prints a table in Markdown, MiB, and returns the exit status."""
    args = flags(argv)
    header = None
    for shape in args.shapes:
        for setting in args.settings:
            began = time.monotonic()
            roles, measured = compare(shape, setting, args.rows, args.length, args.dtype)
            if header is None:
                header = ["shape", "setting", *roles, "predicted", "compiled", "off by", "s"]
                print("| " + " | ".join(header) + " |\n|" + "---|" * len(header), flush=True)
            total = sum(roles.values())
            numbers = [f"{count / 2**20:,.1f}" for count in (*roles.values(), total, measured)]
            last = [f"{total / measured - 1:+.1%}", f"{time.monotonic() - began:.0f}"]
            print("| " + " | ".join([shape, setting, *numbers, *last]) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
