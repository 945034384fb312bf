"""From nothing to the embedded base: corpus file, tokenizer, and full training from random weights, resumable.

Everything lives in one folder: corpus.jsonl, corpus.json (its hash), model/ (tokenizer and configs), plan.json (how
many steps, decided once), log.jsonl, checkpoints/ and at the end base/, which is what ftjax/assets/base holds.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import itertools
import json
from pathlib import Path
import shutil
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import errors
from ftjax.algorithms import sft
from ftjax.assets import vocabulary, world
from ftjax.checkpoint import hf_export, hf_import, store
from ftjax.data import batch as arrays
from ftjax.data import encode, loader, tokenizer
from ftjax.models import params
from ftjax.models.config import ModelConfig
from ftjax.runs import atomic
from ftjax.train import optimizer, state, step

Facts = dict[str, Any]

TOKENIZER_ROWS = 20_000  # of the corpus; more change no merge that matters


def write_corpus(folder: Path, *, seed: int, rows: int) -> Facts:
    """Writes corpus.jsonl, one row a line, and returns its rows, bytes and SHA-256, which corpus.json keeps.

    A folder that holds another corpus is refused: its plan and checkpoints belong to that one.
    """
    digest, size = hashlib.sha256(), 0
    target, card = folder / "corpus.jsonl", folder / "corpus.json"
    beside = target.with_suffix(".tmp")
    with beside.open("wb") as file:
        for row in itertools.islice(world.corpus(seed), rows):
            line = (json.dumps(row) + "\n").encode()
            digest.update(line)
            size += file.write(line)
    facts = {"seed": seed, "rows": rows, "bytes": size, "sha256": digest.hexdigest()}
    if card.exists() and json.loads(card.read_text()) != facts:
        beside.unlink()
        raise errors.UserError(f"{folder} holds another corpus (seed, rows or generator differ); give a new --out")
    beside.replace(target)
    atomic.write_json(card, facts)
    return facts


def write_model_folder(folder: Path, *, seed: int, shape: Facts) -> None:
    """Writes model/: the tokenizer, trained on the first rows of the corpus, config.json and generation_config.json."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    rows = itertools.islice(world.corpus(seed), TOKENIZER_ROWS)
    trained = vocabulary.train(rows, shape["vocab_size"])
    vocabulary.save(trained, model, longest=shape["max_position_embeddings"])
    ids = {
        "bos_token_id": trained.token_to_id(vocabulary.BOS),
        "eos_token_id": trained.token_to_id(vocabulary.END),
        "pad_token_id": trained.token_to_id(vocabulary.PAD),
    }
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **shape, **ids}
    atomic.write_json(model / "config.json", config)
    atomic.write_json(model / "generation_config.json", {**ids, "do_sample": False, "max_new_tokens": 64})


def _examples(folder: Path, *, length: int) -> list[encode.Example]:
    tok = tokenizer.load(folder / "model")
    examples, report = encode.encode_file(
        folder / "corpus.jsonl", tok, template_name=None, max_length=length, truncation="drop", train_on="all"
    )
    print(f"{len(examples):,} rows, {report.tokens:,} tokens, {report.dropped} too long", flush=True)
    return examples


def _seconds_a_step(advance: Callable[..., Any], start: state.TrainState, batches: loader.Loader, base: Any) -> float:
    """Returns the median time of a step, measured on a copy of the state after compiling."""
    current, limit, times = jax.tree.map(jnp.copy, start), jnp.float32(np.inf), []
    for k in range(12):
        begun = time.perf_counter()
        current, metrics = advance(current, base, batches.batch(k), limit)
        metrics["loss"].block_until_ready()
        times.append(time.perf_counter() - begun)
    return float(np.median(times[2:]))


def train(
    folder: Path,
    *,
    minutes: float,
    seed: int,
    batch_size: int,
    length: int,
    warmup_share: float,
    schedule: Facts,
    optimizer_settings: Facts,
    save_seconds: float,
) -> Facts:
    """Trains all weights for as many steps as fit into `minutes`, or goes on where it was stopped; then exports base/.

    The steps are decided once, from a measured step, and kept in plan.json: so a resumed run follows the same schedule
    and takes longer if the machine is busier. Returns what was done: steps, tokens, seconds, the last losses.
    """
    config = dataclasses.replace(hf_import.read_config(folder / "model"), remat="dots")  # saves memory traffic
    batches = loader.Loader(
        [_examples(folder, length=length)],
        collator=arrays.EXAMPLES,
        weights=None,
        layout="packed",
        batch_size=batch_size,
        length=length,
        buckets=(),
        seed=seed,
        shard=loader.Shard(0, 1),
    )
    algorithm = sft.make(lambda key, _: params.init(key, config, jnp.float32), config)
    base = jax.tree.map(lambda _: None, params.abstract(config, jnp.float32))  # nothing is frozen

    def build(steps: int) -> tuple[Any, Callable[..., Any]]:
        rate = optimizer.schedule(steps=steps, warmup_steps=round(warmup_share * steps), **schedule)
        update = optimizer.build(rate, **optimizer_settings)
        return update, jax.jit(step.make(algorithm, update, rate, microbatches=1), donate_argnums=0)

    key = jax.random.key(seed)
    update, advance = build(1000)  # the real number is not known yet
    current = state.init(algorithm.init(key, base), update, key)
    checkpoints = store.Store(folder / "checkpoints", keep_last=1)
    if not (folder / "plan.json").exists():
        seconds = _seconds_a_step(advance, current, batches, base)
        atomic.write_json(folder / "plan.json", {"steps": int(60 * minutes / seconds), "seconds_a_step": seconds})
    plan = json.loads((folder / "plan.json").read_text())
    print(
        f"{plan['steps']} steps of {plan['seconds_a_step']:.2f} s, {batches.batches_per_epoch:.0f} an epoch", flush=True
    )
    update, advance = build(plan["steps"])
    done: Facts = {"seconds": 0.0, "tokens": 0}
    if checkpoints.latest() is not None:
        current, done = checkpoints.restore(None, current)
    done = _loop(folder, current, done, plan["steps"], advance, base, batches, checkpoints, save_seconds)
    trained, _ = checkpoints.restore(None, current)
    _export(folder, trained.trainable, config)
    return {**done, "steps": plan["steps"], "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.trainable))}


def _loop(
    folder: Path,
    current: state.TrainState,
    done: Facts,
    steps: int,
    advance: Callable[..., Any],
    base: Any,
    batches: loader.Loader,
    checkpoints: store.Store,
    save_seconds: float,
) -> Facts:
    """Steps to the end; a checkpoint every save_seconds and on Ctrl-C. Returns the totals."""
    first = int(current.step)
    limit, begun, saved = jnp.float32(np.inf), time.monotonic() - done["seconds"], time.monotonic()
    stream = batches.iterate(first, threads=1, prefetch=8)
    for k in range(first, steps):
        batch = next(stream)
        current, metrics = advance(current, base, batch, limit)
        done["tokens"] += int(np.count_nonzero(batch.segments))
        last = k + 1 == steps
        if (k + 1) % 50 == 0 or last:
            done["seconds"] = time.monotonic() - begun
            line = {name: round(float(value), 5) for name, value in metrics.items()}
            line |= {"step": k + 1, "tokens": done["tokens"], "seconds": round(done["seconds"], 1)}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            left = done["seconds"] / (k + 1) * (steps - k - 1) / 60
            print(
                f"step {k + 1}/{steps}  loss {line['loss']:.4f}  accuracy {line['mean_token_accuracy']:.3f}  "
                f"{done['tokens'] / done['seconds']:,.0f} tokens/s  {left:.0f} min left",
                flush=True,
            )
        if last or time.monotonic() - saved > save_seconds:
            done["seconds"] = time.monotonic() - begun
            checkpoints.save(k + 1, current, done)
            saved = time.monotonic()
    return done


def _export(folder: Path, trained: Any, config: ModelConfig) -> None:
    shutil.rmtree(folder / "base", ignore_errors=True)
    hf_export.save(folder / "base", trained, config, folder / "model", dtype="bfloat16")
