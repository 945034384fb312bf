"""Times products of a few rows with a weight in few bits: the kernel, XLA on the same weight, and a dense bfloat16 one.

python scripts/bench/decode_kernel.py --shape 8B --format nf4-dq --rows 1 4 16

Each projection of a layer is multiplied in a scan over a stack of weights, as the decoder does, so that slicing the
stack is in the time, and as many as --mib holds, so that no cache holds them. GB/s counts what must be read, the bytes
of the weight as it is stored; its share is of what a copy moves in the same process. The kernel is on GPUs and TPUs
only: elsewhere this ends with an error.
"""

from pathlib import Path
import statistics
import sys
import time

from ftjax.errors import UserError
from scripts import cli
from scripts.bench import step


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shape", choices=("1B", "8B"), default="1B")
    parser.add_argument("--format", default="nf4-dq")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--mib", type=int, default=512, help="of packed weights in a stack")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, help="append each row as a JSON line")
    return cli.parse(parser, argv)


def seconds(run, *args, repeats):
    """Returns the median time of a jitted function."""
    import jax

    jax.block_until_ready(run(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def copied(repeats):
    """Returns bytes a second that a copy of 1 GiB reads and writes."""
    import jax
    import jax.numpy as jnp

    x = jnp.zeros(1 << 28, jnp.float32)
    return 2 * x.nbytes / seconds(jax.jit(lambda x: x + 1), x, repeats=repeats)


def measure(args, platform, shape):
    """Yields (name, rows, seconds a product, bytes of the weight) for one shape of weight."""
    import jax
    import jax.numpy as jnp

    from ftjax import tree
    from ftjax.nn import packed_dot
    from ftjax.quant import convert
    from ftjax.quant import format as quant_format

    few = convert.Few(args.format, convert.group_of(args.format, 0))
    quantize = jax.jit(lambda key: convert.module(few.format).quantize(jax.random.normal(key, shape), group=few.group))
    if not isinstance(convert.abstract(shape, few), quant_format.ByCode):
        raise UserError(f"--format {few.format}: the kernel does not take it")
    one = tree.nbytes(convert.abstract(shape, few))
    layers = max(2, args.mib * 2**20 // one)
    node = jax.lax.map(quantize, jax.random.split(jax.random.key(0), layers))
    ours = lambda x, w: packed_dot.packed_dot(x, w, platform=platform)
    ways = {"kernel": (ours, node, one), "XLA": (lambda x, w: x @ w.dequantize(x.dtype), node, one)}
    whole = jnp.zeros((max(2, layers // 4), *shape), jnp.bfloat16)
    ways["bfloat16"] = (lambda x, w: x @ w, whole, 2 * shape[0] * shape[1])
    for name, (product, stack, nbytes) in ways.items():
        run = lambda x, stack, product=product: jax.lax.scan(
            lambda total, w: (total + product(x, w), None), jnp.zeros((x.shape[0], shape[1]), x.dtype), stack
        )
        for rows in args.rows:
            x = jnp.ones((rows, shape[0]), jnp.bfloat16)
            spent = seconds(jax.jit(run), x, stack, repeats=args.repeats)
            yield name, rows, spent / jax.tree.leaves(stack)[0].shape[0], nbytes


def main(argv):
    """Prints a table in Markdown and returns the exit status."""
    args = flags(argv)
    import jax

    device = jax.devices()[0]
    if device.platform not in ("gpu", "tpu"):
        raise UserError(f"there is no kernel for this device ({device.device_kind}); run it on a GPU or TPU")
    speed = copied(args.repeats)
    print(f"{device.device_kind}: a copy moves {speed / 1e9:,.0f} GB/s\n")
    print("| weight | rows | program | us a product | GB/s | share of a copy |\n|---|---|---|---|---|---|")
    _, width, inner, heads, kv_heads, _, _ = step.SHAPES[args.shape]
    shapes = {
        "q": (width, width),
        "k": (width, width // heads * kv_heads),
        "up": (width, inner),
        "down": (inner, width),
    }
    for projection, shape in shapes.items():
        for name, rows, spent, nbytes in measure(args, device.platform, shape):
            rate = nbytes / spent
            weight = f"{projection} {shape[0]} x {shape[1]}"
            print(f"| {weight} | {rows} | {name} | {spent * 1e6:,.1f} | {rate / 1e9:,.0f} | {rate / speed:.0%} |")
            found = {"device": device.device_kind, "format": args.format, "weight": weight, "rows": rows}
            cli.append(args.out, found | {"program": name, "seconds": spent, "nbytes": nbytes, "copy": speed})
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
