"""Times one step of DPO: CPU-seconds, pairs per CPU-second, memory; the reference in the step or computed before.

python scripts/bench/preference.py --shape S --steps 5
python scripts/bench/preference.py --reference cached --prefix repeated
python scripts/bench/preference.py --model DIR --data PAIRS.jsonl --steps 8    # somebody else's pairs, in their order
python scripts/bench/preference.py --task sft                # the same completions as SFT rows, for the memory of both

A batch is 4 pairs. "padded": a row for each prompt with both completions, as long as the longest needs, rounded up to
64; "packed": several in a row of 1,024. Random pairs share a prompt of about 100 tokens. LoRA r 16 on all linears,
AdamW, one pinned core, as in `step.py`.
"""

from pathlib import Path
import sys
import time

from scripts import cli
from scripts.bench import step

PAIRS, LONGEST, ROW = 4, 512, 1024


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shape", choices=step.SHAPES, default="S")
    parser.add_argument("--model", type=Path, help="a model folder instead of random weights")
    parser.add_argument("--data", type=Path, help="its pairs (any format of docs/formats.md), taken in order")
    parser.add_argument("--skip", type=int, default=0, help="batches of --data to leave out at the start")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--task", choices=("dpo", "sft"), default="dpo")
    parser.add_argument("--reference", choices=("base", "cached"), default="base")
    parser.add_argument("--prefix", choices=("shared", "repeated"), default="shared")
    parser.add_argument("--layout", choices=("packed", "padded"), default="packed")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="dots")
    parser.add_argument("--unroll", type=int, default=1)
    parser.add_argument("--quant", default="none", help="the format of the frozen base")
    parser.add_argument("--cores", type=int, default=1, help="0: all")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def pairs_of(args, vocab, count):
    """Returns the candidates, in order: those of --data, or random ones."""
    import numpy as np

    from ftjax.data import candidates, tokenizer

    if args.data is not None:
        found, _ = candidates.encode_preferences_file(
            args.data, tokenizer.load(args.model), template_name=None, max_length=LONGEST, truncation="truncate",
            equal="drop", mismatched=False,
        )  # fmt: skip
        return found
    rng = np.random.default_rng(0)
    ids = lambda mean: rng.integers(0, vocab, int(np.clip(rng.lognormal(np.log(mean), 0.5), 8, 240))).astype(np.int32)
    made = []
    for n in range(count):
        prompt, both = ids(100), (ids(90), ids(90))
        masks = tuple(np.ones(len(one), np.uint8) for one in both)
        made.append(candidates.Candidates(prompt, both, masks, ((0, 1),), (0.0,), (1.0, 0.0), f"random:{n}"))
    return made


def arranged(args, rows):
    """Returns a batch of these candidates."""
    import numpy as np

    from ftjax.data import batch as batches
    from ftjax.data import encode, pack, preference_batch

    if args.task == "sft":
        examples = [
            encode.Example(
                np.concatenate([one.prompt, ids]), np.r_[np.zeros(len(one.prompt), np.uint8), mask], one.where
            )
            for one in rows
            for ids, mask in one.branches()
        ]
        sizes, kinds = [len(one.ids) for one in examples], examples
        make = lambda members, length: batches.pack_rows(members, length=length)
    else:
        sizes, kinds = [one.size(args.prefix) for one in rows], rows
        most = len(rows) if args.layout == "packed" else 1
        make = lambda members, length: preference_batch.pack_candidates(
            members, length=length, completions=2 * most, pairs=most, prefix=args.prefix
        )
    if args.layout == "padded":
        return make([[one] for one in kinds], -(-max(sizes) // 64) * 64)
    bins = pack.members(pack.best_fit(sizes, length=ROW))
    return make([[kinds[i] for i in chosen] for chosen in bins], ROW)


def build(args):
    """Returns the case."""
    import functools

    import jax

    from ftjax.algorithms import dpo, sft
    from ftjax.losses import preference
    from ftjax.train import state
    from ftjax.train import step as steps
    from scripts.bench import workload

    config, base = workload.model(args, step.SHAPES[args.shape])
    found = pairs_of(args, config.vocab_size, PAIRS * (args.steps + args.skip))[PAIRS * args.skip :]
    made = [arranged(args, found[i : i + PAIRS]) for i in range(0, PAIRS * args.steps, PAIRS)]
    plain, update, schedule = workload.training(config, step.RANK, step.ALPHA, step.RATE, False)
    loss = functools.partial(preference.dpo, beta=0.1, label_smoothing=0.0)
    term = dpo.Term(name="dpo", loss=loss, needs=frozenset({"policy", "reference"}), weight=1.0)
    algorithm = (
        sft.make(plain.init, config)
        if args.task == "sft"
        else dpo.make(
            plain.init, config, terms=(term,), beta=0.1, divergence=None, ld_alpha=1.0, wpo=False,
            reference=args.reference, sync=dpo.Sync(0, 0.0),
        )
    )  # fmt: skip
    start = jax.jit(lambda base: state.begin(algorithm, base, update, jax.random.key(1)))(base)
    run = jax.jit(steps.make(algorithm, update, schedule, microbatches=1), donate_argnums=0)
    return workload.Case(config=config, base=base, state=start, step=run, batches=made)


def main(argv):
    """Prints the result and returns the exit status."""
    args = flags(argv)
    step.pin(args.cores)
    began = time.monotonic()
    from scripts.bench import workload

    result = workload.timed(build(args), args.steps)
    result |= {"pairs_per_cpu_second": PAIRS / result["cpu_seconds_a_step"], "task": args.task}
    result |= {name: getattr(args, name) for name in ("reference", "prefix", "layout", "quant", "dtype", "remat")}
    result |= {
        "shape": args.shape if args.model is None else str(args.model),
        "seconds_in_all": time.monotonic() - began,
    }
    step.show(result)
    cli.append(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
