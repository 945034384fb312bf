"""Times loading and exporting a synthetic sharded checkpoint, each in a process of its own, with its peak of memory.

python scripts/bench/load.py --gb 2 --peer ~/torch-env/bin/python

The checkpoint is a Llama of seeded random bfloat16 weights in shards of 500 MB, in a temporary folder that is removed
at the end. Memory is the peak of the resident set above what the imports take; with the checkpoint's size in GB it
says how often the weights are held. CPU seconds are what a shared machine can tell. --peer is a Python with torch and
transformers: its from_pretrained loads the same files in the same run, and a number of every page is read, since some
pages are only promised. The files have just been written, so they are read from the page cache.
"""

import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import textwrap
import time

from scripts import cli
from scripts.bench import synthetic

WIDTH, WIDE, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2048, 5632, 16, 4, 128, 32_000
CASES = {  # name: (whose, dtype asked for)
    "ftjax, float32": ("ftjax", "float32"),
    "ftjax, as stored": ("ftjax", "bfloat16"),
    "transformers, float32": ("peer", "float32"),
    "transformers, as stored": ("peer", "bfloat16"),
    "ftjax, export of a LoRA merged, bfloat16": ("export", "bfloat16"),
}
PEER = """
    import sys, time
    import torch, transformers
    def kilobytes(key):
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
    before, start, cpu = kilobytes("VmRSS"), time.monotonic(), time.process_time()
    made = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
    total = sum(float(p.reshape(-1)[::1024].sum()) for p in made.parameters())  # each page: some were only promised
    print(__import__("json").dumps({"seconds": time.monotonic() - start, "cpu": time.process_time() - cpu,
                                    "peak": kilobytes("VmHWM") - before}))
"""


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--gb", type=float, default=2.0, help="size of the checkpoint, 10^9 bytes")
    parser.add_argument("--peer", help="a Python with torch and transformers")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    parser.add_argument("--child", nargs=3, help="(what a process of its own is told)")
    return cli.parse(parser, argv)


def describe(gb):
    """Returns the config.json of a Llama of about this size."""
    layer = WIDTH * HEAD_DIM * (2 * HEADS + 2 * KV_HEADS) + 3 * WIDTH * WIDE
    layers = max(1, round((gb * 1e9 / 2 - 2 * VOCAB * WIDTH) / layer))
    return synthetic.facts(layers, WIDTH, WIDE, HEADS, KV_HEADS, VOCAB, False, head_dim=HEAD_DIM)


def kilobytes(key):
    """Returns a number of /proc/self/status."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))


def child(whose, dtype, folder):
    """Prints what one process measures."""
    import jax
    import numpy as np

    from ftjax.adapters import attach, lora
    from ftjax.checkpoint import hf_export, hf_import

    jax.devices()
    before, start, cpu = kilobytes("VmRSS"), time.monotonic(), time.process_time()
    config, base = hf_import.load(folder, dtype=dtype)
    jax.block_until_ready(base)
    spent = lambda: {"seconds": time.monotonic() - start, "cpu": time.process_time() - cpu}
    found = spent() | {"peak": kilobytes("VmHWM") - before}
    if whose == "export":
        rng = np.random.default_rng(0)
        low = lambda w: lora.LoRA(
            a=0.01 * rng.standard_normal((*w.shape[:-1], 16), np.float32),
            b=0.01 * rng.standard_normal((*w.shape[:-2], 16, w.shape[-1]), np.float32),
            scale=2.0,
            dropout=0.0,
        )
        pick = lambda path, w: low(w) if path[-1].name.endswith("_proj") else None
        model = attach.attach(base, jax.tree_util.tree_map_with_path(pick, base))
        start, cpu = time.monotonic(), time.process_time()
        hf_export.save(Path(folder) / "out", model, config, folder, dtype)
        found = spent() | {"peak": kilobytes("VmHWM") - before}
    print(json.dumps(found))


def measure(case, folder, peer):
    """Returns seconds and peak of one case in a process of its own, or None where it was not asked for."""
    whose, dtype = CASES[case]
    if whose == "peer":
        if peer is None:
            return None
        command = [peer, "-c", textwrap.dedent(PEER), str(folder), dtype]
    else:
        command = [sys.executable, *sys.orig_argv[1 : -len(sys.argv) + 1 or None], "--child", whose, dtype, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(argv):
    """Prints the table and returns the exit status."""
    args = flags(argv)
    if args.child:
        child(*args.child)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        folder.mkdir()
        size = synthetic.write(folder, describe(args.gb)) / 1e9
        print(f"checkpoint {size:.2f} GB; load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
        result = {"gb": size, "load_average": os.getloadavg()}
        for case in CASES:
            found = measure(case, folder, args.peer)
            if found is None:
                continue
            numbers = {name: found[name] / size for name in ("seconds", "cpu")}
            result[case] = numbers | {"peak": found["peak"] * 1024 / 1e9 / size}
            shown = "{seconds:6.2f} s/GB   {cpu:6.2f} CPU s/GB   peak {peak:5.2f} GB/GB".format(**result[case])
            print(f"{case:<42} {shown}")
    cli.append(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
