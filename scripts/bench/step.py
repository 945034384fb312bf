"""Times one training step: real tokens per CPU-second, memory, compile time, FLOP/s against a matmul in the same run.

python scripts/bench/step.py --shape S --steps 5
python scripts/bench/step.py --model DIR --data FILE.jsonl --steps 8     # somebody else's rows, in their order
python scripts/bench/step.py --shape S --quant nf4-dq                    # QLoRA

One pinned core by default, because CPU-seconds of one core are what a shared machine can tell; --cores 0 uses all.
A batch is 8 sequences, packed into as many rows of 512 as they need (or padded: 8 rows; or dataset: 4 rows filled from
all sequences, which is what train.py does, so that a step wastes less); LoRA r 16 on all linears; every
token counts in the loss. Random weights and lengths (log-normal, mean about 190) unless --model and --data.
"""

import os
from pathlib import Path
import sys
import time

from scripts import cli

SHAPES = {  # layers, width, MLP, heads, KV heads, vocabulary, tied
    "S": (4, 256, 688, 4, 4, 4096, False),
    "M": (30, 576, 1536, 9, 3, 49152, True),
    "1B": (16, 2048, 8192, 32, 8, 128256, True),
    "8B": (32, 4096, 14336, 32, 8, 128256, False),
    "70B": (80, 8192, 28672, 64, 8, 128256, False),
}
BATCH, LENGTH, RANK, ALPHA, RATE = 8, 512, 16, 32.0, 2e-4


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="S")
    parser.add_argument("--model", type=Path, help="a model folder instead of random weights")
    parser.add_argument("--data", type=Path, help="its rows (messages), taken in order")
    parser.add_argument("--skip", type=int, default=0, help="batches of --data to leave out at the start")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--layout", choices=("packed", "padded", "dataset"), default="packed")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="dots")
    parser.add_argument("--unroll", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="train all weights instead of adapters")
    parser.add_argument("--quant", default="none", help="the format of a frozen base; groups of 64, or what divides")
    parser.add_argument("--cores", type=int, default=1, help="0: all")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def pin(cores):
    """Keeps this process on the least busy cores; to be called before jax starts its threads."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        return

    def busy():
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
        return {int(f[0][3:]): sum(map(int, f[1:4])) for f in lines if f[0] != "cpu"}

    allowed, before = os.sched_getaffinity(0), busy()
    time.sleep(0.3)
    after = busy()
    os.sched_setaffinity(0, sorted(allowed, key=lambda cpu: after.get(cpu, 0) - before.get(cpu, 0))[:cores])


def show(result):
    """Prints the figures, one a line."""
    width = max(map(len, result))
    for name, value in result.items():
        print(f"{name:<{width}}  {value:,.4g}" if isinstance(value, float) else f"{name:<{width}}  {value}")


def main(argv):
    """Prints the result and returns the exit status."""
    args = flags(argv)
    pin(args.cores)
    began = time.monotonic()
    from scripts.bench import workload

    case = workload.build(args, SHAPES[args.shape], BATCH, LENGTH, RANK, ALPHA, RATE)
    result = workload.measure(case, args.steps)
    result |= {
        "shape": args.shape if args.model is None else str(args.model),
        "layout": args.layout,
        "dtype": args.dtype,
        "quant": args.quant,
    }
    result |= {"seconds_in_all": time.monotonic() - began, "cores": args.cores or os.cpu_count(), "remat": args.remat}
    show(result)
    cli.append(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
