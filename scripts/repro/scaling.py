"""E6: how LoRA's first update grows with its rank, scaled by alpha / r and alpha / sqrt(r) (Kalajdzievski 2023)."""

from collections.abc import Mapping, Sequence
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import sweep
from ftjax.adapters import attach, lora
from ftjax.adapters import init as adapters_init
from ftjax.algorithms import sft
from ftjax.checkpoint import hf_import
from ftjax.data import batch as arrays
from ftjax.data import encode, loader, tokenizer
from ftjax.models import decoder
from ftjax.train import step as steps
from scripts.repro.check import Check

RANKS = (1, 4, 16, 64)
SEEDS = (0, 1, 2)
ALPHA = 32.0
ROWS = 64
STEP = 1e-4  # of both updates: small, so that the logits answer in proportion
THEORY = {  # slopes on log-log: what grows, under which scaling
    ("logits, sgd", False): -1.0,
    ("logits, sgd", True): 0.0,
    ("gradient norm", False): -0.5,
    ("gradient norm", True): 0.0,
    ("logits, sign", False): 0.0,
    ("logits, sign", True): 0.5,
}
SWEEP = "configs/repro/rslora.py"


def sizes(model: Path, data: Path) -> dict[tuple[str, bool], np.ndarray]:
    """Returns [seeds, ranks] of each quantity of THEORY after one step from B = 0."""
    config, base = hf_import.load(model)
    examples, _ = encode.encode_file(
        data, tokenizer.load(model), template_name=None, max_length=64, truncation="drop", train_on="all"
    )
    (batch,) = loader.eval_batches(
        examples[:ROWS],
        collator=arrays.EXAMPLES,
        layout="packed",
        batch_size=ROWS,
        length=64,
        buckets=(),
        shard=loader.Shard(0, 1),
    )
    batch = jax.tree.map(jnp.asarray, batch)
    evaluate = steps.make_evaluate(sft.make(lambda *_: None, config))
    logits = lambda a: decoder.logits(
        attach.attach(base, a), batch.tokens, config, positions=batch.positions, segments=batch.segments
    )

    def mean_loss(adapters: Any) -> jax.Array:
        total, weight, _ = evaluate(adapters, base, batch)
        return total / weight

    @jax.jit
    def measured(adapters: Any) -> dict[str, jax.Array]:
        gradient = jax.grad(mean_loss)(adapters)
        moved = lambda direction: jax.tree.map(lambda w, d: w - STEP * d, adapters, direction)
        change = lambda direction: jnp.sqrt(jnp.mean(jnp.square(logits(moved(direction)) - logits(adapters))))
        return {
            "logits, sgd": change(gradient),
            "gradient norm": jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient))),
            "logits, sign": change(jax.tree.map(jnp.sign, gradient)),
        }

    found: dict[tuple[str, bool], np.ndarray] = {key: np.zeros((len(SEEDS), len(RANKS))) for key in THEORY}
    for rslora in (False, True):
        make = functools.partial(lora.init_one, dropout=0.0, rslora=rslora)
        for column, rank in enumerate(RANKS):
            for row, seed in enumerate(SEEDS):
                adapters = adapters_init.init(
                    jax.random.key(seed), base, make=make, targets="all-linear", rank=rank, alpha=ALPHA,
                    rank_pattern={}, alpha_pattern={},
                )  # fmt: skip
                for name, value in measured(adapters).items():
                    found[name, rslora][row, column] = float(value)
    return found


def slopes(values: np.ndarray) -> np.ndarray:
    """Returns the slope of log value over log rank, one a row."""
    return np.array([np.polyfit(np.log(RANKS), np.log(row), 1)[0] for row in values])


def run(model: Path, data: Path, folder: Path, train: Any, common: Mapping[str, Any]) -> list[Check]:
    """Returns the checks of E6; `train` runs the sweep of 150 steps."""
    checks = []
    for (name, rslora), values in sizes(model, data).items():
        found, theory = slopes(values), THEORY[name, rslora]
        scale = "alpha / sqrt(r)" if rslora else "alpha / r"
        shown = f"{found.mean():+.3f} ± {found.std(ddof=1):.3f}"
        passed = abs(found.mean() - theory) <= 0.1
        checks.append(Check(f"slope of {name}, {scale}", f"{theory:+.1f} ± .10", shown, bool(passed)))
    rows: Sequence[Any] = train(folder, SWEEP, sweep.plan(SWEEP, common))
    for row in rows:
        scale = "alpha / sqrt(r)" if row.changes["adapter.rslora"] else "alpha / r"
        shown = f"{row.numbers['after.eval_loss']:.4f}" if row.numbers else f"{row.status}: {row.note}"
        checks.append(Check(f"150 steps, r {row.changes['adapter.rank']}, {scale}: B-NLL", "", shown, None))
    return checks
