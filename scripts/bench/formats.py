"""Times the quantisation formats on one core, and compares what their products keep for the backward pass.

python scripts/bench/formats.py             # the same with Qwix's NF4 beside it, where it can be imported

Speed: GB/s of the float32 weight [4096, 14336], into few bits and back to dense float32 and bfloat16, compiled, the
best of three. Memory: temporary bytes that XLA plans for value and gradient over 8 layers of a frozen [2048, 2048] with
LoRA of rank 8, 256 rows in float32, in a scan: our product; the dense form under autodiff, alone and within
jax.checkpoint; Qwix's `dot_general` on its own NF4.
"""

import importlib.util
from pathlib import Path
import sys
import time

from scripts import cli
from scripts.bench import step

WEIGHT, REPEATS = (4096, 14336), 3
LAYERS, WIDTH, RANK, ROWS, GROUP = 8, 2048, 8, 256, 64


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--cores", type=int, default=1, help="0: all")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def best(run, *arguments):
    """Returns the least CPU-seconds of a compiled call, and its result."""
    import jax

    made, seconds = jax.block_until_ready(run(*arguments)), []
    for _ in range(REPEATS):
        began = time.process_time()
        jax.block_until_ready(run(*arguments))
        seconds.append(time.process_time() - began)
    return min(seconds), made


def speeds(name):
    """Returns GB/s into the format and back."""
    import jax
    import jax.numpy as jnp

    from ftjax.quant import convert

    weight = jax.random.normal(jax.random.key(0), WEIGHT)
    few = convert.Few(name, convert.group_of(name, 0))
    made, node = best(lambda w: convert.matrix(w, few, where="weight"), weight)
    found = {"quantise": made}
    for dtype in (jnp.float32, jnp.bfloat16):
        back, _ = best(jax.jit(lambda n, dtype=dtype: n.dequantize(dtype)), node)
        found[f"to {dtype.__name__}"] = back
    return {what: weight.nbytes / 1e9 / seconds for what, seconds in found.items()}


def temporaries():
    """Returns MiB of temporaries by form of the product."""
    import jax
    import jax.numpy as jnp

    from ftjax.nn import matmul
    from ftjax.quant import convert

    shape = jax.ShapeDtypeStruct
    ours = convert.abstract((LAYERS, WIDTH, WIDTH), convert.Few("nf4", GROUP))
    dense = lambda x, w: x @ w.dequantize(x.dtype)
    forms = {
        "ftjax": (matmul.matmul, ours),
        "autodiff": (dense, ours),
        "autodiff, jax.checkpoint": (jax.checkpoint(dense), ours),
    }
    if importlib.util.find_spec("qwix") is not None:
        import qwix

        make = lambda w: qwix.quantize(w, "nf4", tiled_axes={0: GROUP})
        theirs = jax.eval_shape(jax.vmap(make), shape((LAYERS, WIDTH, WIDTH), jnp.float32))
        forms["Qwix"] = (lambda x, w: qwix.dot_general(x, w, (((1,), (0,)), ((), ()))), theirs)
    a, b = (shape((LAYERS, *sides), jnp.float32) for sides in ((WIDTH, RANK), (RANK, WIDTH)))
    return {name: planned(*form, a, b) / 2**20 for name, form in forms.items()}


def planned(product, weights, a, b):
    """Returns the bytes of temporaries of value and gradient with respect to the adapters."""
    import jax
    import jax.numpy as jnp

    def loss(adapters, x, weights):
        layer = lambda x, one: (jnp.tanh(product(x, one[0]) + x @ one[1] @ one[2]), None)
        return jnp.mean(jax.lax.scan(layer, x, (weights, *adapters))[0] ** 2)

    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(loss)).lower((a, b), x, weights).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main(argv):
    """Prints the result and returns the exit status."""
    args = flags(argv)
    step.pin(args.cores)
    from ftjax.quant import convert

    result = {name: speeds(name) for name in convert.formats()}
    for name, row in result.items():
        print(f"{name:<10}", "  ".join(f"{what} {rate:6.2f} GB/s" for what, rate in row.items()))
    result["temporaries_mib"] = temporaries()
    for name, mib in result["temporaries_mib"].items():
        print(f"{name:<26} {mib:7.1f} MiB")
    cli.append(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
