"""Log-probabilities of a run's preferences under its reference policy, computed once and kept on disk.

Training then never runs the reference, and full fine-tuning or another model as the reference costs no second copy of
weights while it trains. They lie under a hash of all that they depend on: weights, adapter, tokens, settings.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ftjax import hosts, inference, training_data
from ftjax import mesh as meshes
from ftjax.adapters import attach
from ftjax.algorithms import completions
from ftjax.checkpoint import hf_import
from ftjax.data import cache, files, loader
from ftjax.data.candidates import Candidates
from ftjax.errors import UserError
from ftjax.experiment import Experiment
from ftjax.models.config import ModelConfig

FORMAT = 1  # of what is computed: a change must change it


def wanted(x: Experiment) -> bool:
    """Tells whether a run trains on cached log-probabilities.

    Raises where they would depend on what else is in a batch: rotary tables that the longest row chooses.
    """
    if not x.config.get("reference", {}).get("cache"):
        return False
    for rope in (x.model_config.rope, x.model_config.second_rope):
        if rope and rope.kind in ("longrope", "dynamic") and x.data.length > rope.original_max_position:
            raise UserError(
                f"config.reference.cache with {rope.kind} rotary tables and rows of up to {x.data.length} tokens: "
                f"beyond {rope.original_max_position} they depend on the longest row of a batch; set cache to false"
            )
    return True


def inputs(x: Experiment) -> dict[str, dict[str, str]]:
    """Returns what a run starts from or is held against beside its base, by the file in its folder that keeps it."""
    found = {}
    path = x.config["adapter"]["path"]
    if path:
        found["start.json"] = {"path": path, "hash": _digest(path)}
    if wanted(x) and x.config["reference"]["model"]:
        other = x.config["reference"]["model"]
        found["reference.json"] = {"path": other, "hash": hf_import.content_hash(inference.folder_of(other))}
    return found


def _digest(adapter: str) -> str:
    """Returns what stands for an adapter folder."""
    folder = Path(adapter).expanduser()
    return hashlib.sha256(
        "".join(files.digest(folder / name) for name in ("adapter_config.json", "adapter_model.safetensors")).encode()
    ).hexdigest()


def from_model(x: Experiment, say: Callable[[str], None]) -> Experiment:
    """Returns the experiment with the log-probabilities of config.reference.model, if there is one.

    To be called before the run's own weights are loaded: the other model's are gone when this returns.
    """
    if not wanted(x) or not x.config["reference"]["model"]:
        return x
    other = x.config["reference"]["model"]
    folder = inference.folder_of(other)

    def load() -> tuple[ModelConfig, Any]:
        weights = x.config["model"]["weights"]
        config, params = hf_import.load(folder, "none", weights, x.mesh)
        return dataclasses.replace(config, dtype=x.model_config.dtype), params

    return _filled(x, {"model": hf_import.content_hash(folder)}, load, say)


def from_base(x: Experiment, base: Any, say: Callable[[str], None]) -> Experiment:
    """Returns the experiment with the log-probabilities of what training starts from, where they are wanted."""
    if not wanted(x) or x.config["reference"]["model"]:
        return x
    path = x.config["adapter"]["path"]
    facts = {
        "model": hf_import.content_hash(x.model_dir),
        "quant": x.config["quant"],
        "adapter": _digest(path) if path else "",
    }
    start = None if x.start.adapters is None else x.start.adapters.replace(score=None)
    return _filled(x, facts, lambda: (x.model_config, attach.attach(base, start)), say)


def _filled(
    x: Experiment, facts: dict[str, Any], load: Callable[[], tuple[ModelConfig, Any]], say: Callable[[str], None]
) -> Experiment:
    c, data = x.config, x.data
    rows: list[Candidates] = [*itertools.chain(*data.train), *data.chosen]
    ld_alpha = c["loss"].get("ld_alpha", 1.0)  # KTO's losses have none
    key = cache.key(
        what="reference", facts=facts, data=data.hash, dtype=c["model"], ld_alpha=ld_alpha, format=FORMAT
    )  # fmt: skip
    known = cache.read(key, ("logps",)) if hosts.is_first() else None
    if not hosts.of_first(lambda: known is not None):
        say(f"computing the reference's log-probabilities of {len(rows):,} rows")
        config, params = load()
        logps = _logps(x, config, params, rows, ld_alpha)
        if hosts.is_first():
            cache.write(key, arrays={"logps": logps}, about={})
    else:
        say("the reference's log-probabilities are known")
        logps = hosts.array_of_first(known[0]["logps"] if known else np.zeros(sum(map(_count, rows)), np.float32))
    values = iter(logps.tolist())
    filled = [row._replace(reference=tuple(itertools.islice(values, _count(row)))) for row in rows]
    at = itertools.accumulate(map(len, data.train), initial=0)
    train = [filled[a : a + len(part)] for a, part in zip(at, data.train, strict=False)]
    data = data._replace(train=train, chosen=filled[sum(map(len, data.train)) :])
    held = x.held_out._replace(batches=training_data.held_batches(data, c))
    return dataclasses.replace(x, data=data, loader=data.stream(data.train), held_out=held)


def _count(row: Candidates) -> int:
    return len(row.completions) + len(row.mismatched)


def _logps(
    x: Experiment, config: ModelConfig, params: Any, rows: list[Candidates], ld_alpha: float
) -> np.ndarray:  # fmt: skip
    """Returns the log-probability of every completion of every row, in order, float32."""
    order = sorted(range(len(rows)), key=lambda i: x.data.collator.size(rows[i]))
    batches = loader.eval_batches(
        [rows[i] for i in order],
        collator=x.data.collator,
        layout="padded",
        batch_size=x.config["data"]["batch_size"],
        length=x.data.length,
        buckets=training_data.buckets(x.config["data"], x.data.length),
        shard=loader.Shard(0, 1),
    )
    run = jax.jit(lambda params, batch: completions.of(params, batch, config, ld_alpha=ld_alpha, squares=False).logps)
    found = np.concatenate([hosts.on_host(run(params, meshes.place_whole_batch(x.mesh, batch))) for batch in batches])
    by_row: dict[int, np.ndarray] = {i: found[n, : _count(rows[i])] for n, i in enumerate(order)}
    return np.concatenate([by_row[i] for i in range(len(rows))]).astype(np.float32)
