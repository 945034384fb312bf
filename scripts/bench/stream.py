"""Loads a checkpoint that is larger than the memory it is given, trains on it and asks it: QLoRA of an 8B in 12 GiB.

python scripts/bench/stream.py --shape 8B --format nf4-dq    # writes 16 GB into a temporary folder, removed after

A Llama of random bfloat16 weights is written in shards, then read as a stream into few bits, a tensor at a time; then
come LoRA steps (r 16 on all linears, AdamW, layers recomputed, float32 activations) and greedy decoding. Every phase
prints its seconds, CPU-seconds and the peak of the resident set in it, above nothing: the imports are in it. What the
weights take is what is in the arrays.
"""

import os
from pathlib import Path
import sys
import tempfile
import time

from scripts import cli
from scripts.bench import step, synthetic

RANK, ALPHA, RATE = 16, 32.0, 2e-4
PROMPT = 16


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shape", choices=step.SHAPES, default="M")
    parser.add_argument("--format", default="nf4-dq")
    parser.add_argument("--group", type=int, default=0, help="numbers that share a scale; 0: the format's own")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or is kept; default: nowhere")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--length", type=int, default=256, help="tokens a step")
    parser.add_argument("--new", type=int, default=8, help="tokens to generate")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of activations")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def status(key):
    """Returns bytes of a number of /proc/self/status."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


class Phase:
    """Measures what is done inside it, and says so."""

    def __init__(self, name, found):
        self.name, self.found = name, found

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident
        self.start, self.cpu = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *error):
        if error[0] is None:
            spent = {"seconds": time.monotonic() - self.start, "cpu_seconds": time.process_time() - self.cpu}
            self.found[self.name] = spent | {"peak_gib": status("VmHWM") / 2**30, "after_gib": status("VmRSS") / 2**30}
            line = "{seconds:8.1f} s  {cpu_seconds:8.1f} CPU s  peak {peak_gib:6.2f} GiB  after {after_gib:6.2f} GiB"
            print(f"{self.name:<16} " + line.format(**self.found[self.name]), flush=True)


def run(args, folder, found):
    """Loads, trains and generates, one phase after the other."""
    import dataclasses

    import jax
    import jax.numpy as jnp
    import numpy as np

    from ftjax import tree
    from ftjax.adapters import attach
    from ftjax.checkpoint import hf_import
    from ftjax.data import batch as batches
    from ftjax.data import encode
    from ftjax.sampling import generate
    from ftjax.train import state
    from ftjax.train import step as steps
    from scripts.bench import workload

    jax.devices()
    found["imports_gib"] = status("VmRSS") / 2**30
    with Phase("load", found):
        config, base = hf_import.load(folder, args.format, "bfloat16", group=args.group)
        jax.block_until_ready(base)
    found["weights_gib"] = tree.nbytes(base) / 2**30
    print(f"{'weights':<16} {found['weights_gib']:.2f} GiB", flush=True)
    config = dataclasses.replace(config, dtype=args.dtype, remat="full")
    algorithm, update, schedule = workload.training(config, RANK, ALPHA, RATE, False)
    rng = np.random.default_rng(0)
    full = np.r_[0, np.ones(args.length - 1, np.uint8)].astype(np.uint8)
    tokens = lambda n: rng.integers(0, config.vocab_size, n).astype(np.int32)
    rows = [batches.pad_rows([encode.Example(tokens(args.length), full, "random")], length=args.length)]
    limit = jnp.float32(jnp.inf)  # of the loss: no step is refused
    with Phase("compile", found):
        begin = lambda base: state.init(algorithm.init(jax.random.key(1), base), update, jax.random.key(2))
        trained = jax.jit(begin)(base)
        program = jax.jit(steps.make(algorithm, update, schedule, microbatches=1), donate_argnums=0)
        program = program.lower(trained, base, rows[0], limit).compile()
    found["loss"] = []
    for k in range(args.steps):
        with Phase(f"step {k + 1}", found):
            trained, metrics = program(trained, base, rows[0], limit)
            found["loss"].append(float(metrics["loss"]))
    del program
    model = attach.attach(base, trained.trainable)
    prompt = [tokens(PROMPT).tolist()]
    settings = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop_ids": ()}
    for new in (1, args.new):
        with Phase(f"generate {new}", found):
            out = generate.generate(model, prompt, jax.random.key(0), config, max_new_tokens=new, **settings)
            found["tokens"] = jax.device_get(out.tokens)[0].tolist()
    print(f"loss {found['loss']}, tokens {found['tokens']}")


def main(argv):
    """Prints the phases and returns the exit status."""
    args = flags(argv)
    found = {"shape": args.shape, "format": args.format, "cores": os.cpu_count(), "load_average": os.getloadavg()}
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name) / "model"
        if not (folder / "config.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with Phase("write", found):
                found["checkpoint_gb"] = synthetic.write(folder, synthetic.facts(*step.SHAPES[args.shape])) / 1e9
            print(f"{'checkpoint':<16} {found['checkpoint_gb']:.2f} GB", flush=True)
        run(args, folder, found)
    cli.append(args.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
