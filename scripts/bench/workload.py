"""The workload of `step.py`: a model, its batches, and the jitted step, measured."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import tree
from ftjax.adapters import init as adapters_init
from ftjax.adapters import lora
from ftjax.algorithms import sft
from ftjax.checkpoint import hf_import
from ftjax.data import batch as batches
from ftjax.data import encode, pack, tokenizer
from ftjax.models import params
from ftjax.models.config import ModelConfig
from ftjax.models.families import llama
from ftjax.quant import convert
from ftjax.runs import clock
from ftjax.train import optimizer, state, step
from scripts.bench import synthetic


@dataclasses.dataclass
class Case:
    """Everything that a measurement needs."""

    config: ModelConfig
    base: Any
    state: Any
    step: Any
    batches: list[Any]


def shaped(shape, dtype, remat, unroll):
    """Returns the Llama config of a row of `step.SHAPES`."""
    made = llama.config_from_hf(synthetic.facts(*shape))
    return dataclasses.replace(made, dtype=dtype, remat=remat, unroll=unroll)


def examples_of(args, vocab, count, length):
    """Returns the rows, in order: those of --data, or random ones."""
    if args.data is not None:
        found, _ = encode.encode_file(
            args.data, tokenizer.load(args.model), template_name=None, max_length=length, truncation="truncate",
            train_on="all",
        )  # fmt: skip
        return found
    rng = np.random.default_rng(0)
    sizes = np.clip(rng.lognormal(np.log(165), 0.68, count), 24, length).astype(int)
    full = lambda n: np.concatenate([[0], np.ones(n - 1, np.uint8)]).astype(np.uint8)
    return [
        encode.Example(rng.integers(0, vocab, n).astype(np.int32), full(n), f"random:{i}") for i, n in enumerate(sizes)
    ]


def arranged(rows, layout, length):
    """Returns a batch of these rows."""
    if layout == "padded":
        return batches.pad_rows(rows, length=batches.bucket(max(len(r.ids) for r in rows), range(64, length + 1, 64)))
    bins = pack.members(pack.best_fit([len(r.ids) for r in rows], length=length))
    return batches.pack_rows([[rows[i] for i in chosen] for chosen in bins], length=length)


def packed_file(rows, batch, length):
    """Returns batches as `train.py` makes them: bins filled over all rows, then drawn at random; a rest is left out."""
    bins = pack.members(pack.best_fit([len(r.ids) for r in rows], length=length))
    whole = len(bins) // batch * batch
    drawn = np.random.default_rng(0).permutation(len(bins))[:whole].reshape(-1, batch)
    return [batches.pack_rows([[rows[i] for i in bins[b]] for b in chosen], length=length) for chosen in drawn]


def training(config, rank, alpha, rate, full):
    """Returns algorithm, optimizer and schedule: LoRA on all linears, or all weights, by AdamW."""
    schedule = optimizer.schedule(
        schedule="constant", learning_rate=rate, steps=1000, warmup_steps=0, end_ratio=0.0, decay_share=0.1
    )
    update = optimizer.build(
        schedule, name="adamw", b1=0.9, b2=0.999, eps=1e-8, momentum=0.0, weight_decay=0.0, decay=".*", clip_norm=1.0,
        lora_plus_ratio=1.0,
    )  # fmt: skip
    adapters = functools.partial(
        adapters_init.init, make=functools.partial(lora.init_one, dropout=0.0, rslora=False), targets="all-linear",
        rank=rank, alpha=alpha, rank_pattern={}, alpha_pattern={},
    )  # fmt: skip
    whole = lambda _, base: jax.tree.map(lambda w: w.astype(jnp.float32), base)
    algorithm = sft.make(whole if full else adapters, config)
    return algorithm, update, schedule


def planned(config, name):
    """Returns which weights are in few bits, in the largest group of at most the format's own that divides each."""
    if name == "none":
        return {}
    own = convert.group_of(name, 0)
    shapes = {path: leaf.shape for path, leaf in tree.paths(params.abstract(config, "float32")).items()}
    group = lambda rows: next(g for g in (own, 32, 16, 2) if rows % g == 0) if own else 0
    return {path: convert.Few(name, group(shapes[path][-2])) for path in convert.chosen(shapes, hf_import.QUANTISED)}


def model(args, shape):
    """Returns config and base that the flags of `step.py` describe: of a folder, or random."""
    if args.model is not None:
        found = planned(hf_import.read_config(args.model), args.quant)
        config, base = hf_import.load(args.model, found, args.dtype)
        return dataclasses.replace(config, remat=args.remat, unroll=args.unroll), base
    config = shaped(shape, args.dtype, args.remat, args.unroll)
    base, few = params.init(jax.random.key(0), config, args.dtype), planned(config, args.quant)
    return config, params.from_paths(
        {name: convert.leaf(w, few[name], name) if name in few else w for name, w in tree.paths(base).items()}
    )


def build(args, shape, batch, length, rank, alpha, rate):
    """Returns the case that the flags of `step.py` describe."""
    config, base = model(args, shape)
    rows = examples_of(args, config.vocab_size, batch * (args.steps + args.skip), length)[batch * args.skip :]
    if args.layout == "dataset":
        made = packed_file(rows, batch // 2, length)
    else:
        made = [arranged(rows[i : i + batch], args.layout, length) for i in range(0, batch * args.steps, batch)]
    algorithm, update, schedule = training(config, rank, alpha, rate, args.full)
    start = jax.jit(lambda base: state.init(algorithm.init(jax.random.key(1), base), update, jax.random.key(2)))(base)
    base = jax.tree.map(lambda _: None, base) if args.full else base
    run = jax.jit(step.make(algorithm, update, schedule, microbatches=1), donate_argnums=0)
    return Case(config=config, base=base, state=start, step=run, batches=made)


def flops_a_token(config, case):
    """Returns multiplications and additions a real token: forward, backward through frozen weights, head, adapters.

    2 a weight forward and 2 for the gradient of its input; the frozen head costs 2 and 2; attention over half the mean
    document twice forward and four times backward; adapters 6 a parameter (or 6 a weight when everything trains).
    """
    weights = sum(w.size for name, w in tree.paths(params.abstract(config, "float32")).items() if "_proj" in name)
    head = config.vocab_size * config.d_model
    trained = tree.count(case.state.trainable)
    lengths = np.concatenate(
        [np.unique(b.segments[r], return_counts=True)[1] for b in case.batches for r in range(len(b.segments))]
    )
    attention = 2 * config.n_layers * config.q_dim * float((lengths**2).sum() / lengths.sum())
    everything = trained >= weights
    return 6 * (weights + head) + 3 * attention if everything else 4 * (weights + head) + 6 * trained + 3 * attention


def matmul_rate(size=1024, repeats=6):
    """Returns FLOP per CPU-second of a float32 matmul of 2048 x 1024 x 1024 on the same core."""
    multiply = jax.jit(lambda a, b: a @ b)
    a, b = jnp.ones((2 * size, size)), jnp.ones((size, size))
    multiply(a, b).block_until_ready()
    began = time.process_time()
    for _ in range(repeats):
        multiply(a, b).block_until_ready()
    return repeats * 2 * 2 * size**3 / (time.process_time() - began)


def compiled_for(case):
    """Returns the program of every shape of the case's batches."""
    found = {}
    for batch in case.batches:
        if batch.tokens.shape not in found:
            found[batch.tokens.shape] = case.step.lower(case.state, case.base, batch, jnp.float32(jnp.inf)).compile()
    return found


def temporary(compiled):
    """Returns the MiB of temporary arrays of the largest of these programs."""
    return max(p.memory_analysis().temp_size_in_bytes for p in compiled.values()) / 2**20


def timed(case, steps):
    """Returns times and memory of `steps` steps after every shape was compiled."""
    limit, began, losses = jnp.float32(jnp.inf), time.monotonic(), []
    compiled = compiled_for(case)
    seconds = (time.monotonic() - began) / len(compiled)
    case.state, metrics = compiled[case.batches[0].tokens.shape](case.state, case.base, case.batches[0], limit)
    first = float(metrics["loss"])
    cpu, wall, real, slots = [], [], [], []
    for batch in case.batches[:steps]:
        began, began_cpu = time.monotonic(), time.process_time()
        case.state, metrics = compiled[batch.tokens.shape](
            case.state, case.base, jax.tree.map(jnp.asarray, batch), limit
        )
        losses.append(float(metrics["loss"]))
        cpu.append(time.process_time() - began_cpu)
        wall.append(time.monotonic() - began)
        real.append(int((batch.segments > 0).sum()))
        slots.append(batch.tokens.size)
    return {
        "first_loss": first,
        "last_loss": losses[-1],
        "real_tokens_a_step": float(np.mean(real)),
        "slots_a_step": float(np.mean(slots)),
        "cpu_seconds_a_step": sum(cpu) / len(cpu),
        "wall_seconds_a_step": sum(wall) / len(wall),
        "tokens_per_cpu_second": sum(real) / sum(cpu),
        "compile_seconds": seconds,
        "programs": len(compiled),
        "temporary_mib": temporary(compiled),
        "peak_rss_mib": clock.peak_rss() / 2**20,
    }


def measure(case, steps):
    """Returns `timed`, beside a matmul in the same process."""
    found = timed(case, steps)
    rate, flops = matmul_rate(), flops_a_token(case.config, case)
    done = found["tokens_per_cpu_second"] * flops
    more = {"matmul_gflops": rate / 1e9, "step_gflops": done / 1e9, "share_of_matmul": done / rate}
    return found | more | {"mflop_a_token": flops / 1e6}
