"""The composition root: a config -> an experiment with every part built and checked, before a weight is read.

The only module that reads config sections. `build` needs files and shapes, no weights; `start` reads the weights.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from ftjax import config as configs
from ftjax import held_out, inference, lookup, tree
from ftjax import mesh as meshes
from ftjax.adapters import init as adapters_init
from ftjax.adapters import lora
from ftjax.algorithms import sft
from ftjax.algorithms.algorithm import Algorithm
from ftjax.checkpoint import hf_import
from ftjax.data import chat, encode, loader, records, report, template, tokenizer
from ftjax.errors import UserError
from ftjax.models import params
from ftjax.models.config import ModelConfig
from ftjax.train import optimizer
from ftjax.train import state as states

MAY_CHANGE = ("steps", "log.", "eval.", "checkpoint.", "stop.")  # what a resumed run may change


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a run needs, but for weights. `abstract_*` are shapes."""

    config: dict[str, Any]
    model_dir: Path
    model_config: ModelConfig
    tokenizer: tokenizer.Tokenizer
    template: template.Template | None
    stop_ids: tuple[int, ...]
    loader: loader.Loader
    data_report: report.EncodeReport
    held_out: held_out.HeldOut
    mesh: jax.sharding.Mesh | None
    algorithm: Algorithm
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    abstract_base: Any
    abstract_state: states.TrainState
    derived: dict[str, str]


def use_compilation_cache() -> None:
    """Turns on XLA's persistent compilation cache, below $FTJAX_CACHE or ~/.cache/ftjax."""
    root = Path(os.environ.get("FTJAX_CACHE") or Path.home() / ".cache" / "ftjax")
    jax.config.update("jax_compilation_cache_dir", str(root / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as nested dicts, tuples kept."""
    return config.to_dict()


def pattern(text: str, kind: type, name: str) -> dict[str, Any]:
    """Returns `{"q_proj": 16}` for "q_proj=16,..."."""
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        try:
            found[key.strip()] = kind(value)
        except ValueError:
            equals = ""
        if not equals:
            raise UserError(f"{name}: {part!r} must be NAME={kind.__name__}, for example q_proj=16")
    return found


def build(config: ml_collections.ConfigDict) -> Experiment:
    """Returns the experiment of a config; whatever is wrong with it is a UserError here, before weights are read."""
    c = plain(config)
    _check_ranges(c)
    model_dir = inference.folder_of(c["model"]["path"])
    model_config = dataclasses.replace(
        hf_import.read_config(model_dir),
        dtype=c["model"]["dtype"],
        remat=c["model"]["remat"],
        unroll=c["model"]["unroll"],
    )
    tok = tokenizer.load(model_dir)
    tokenizer.check_vocabulary(tok, model_config.vocab_size)
    name = c["data"]["template"] or None
    made = template.load(name, tok) if name or tok.chat_template else None
    abstract_base = params.abstract(model_config, c["model"]["weights"])
    mesh = _mesh(c)
    trainable_init = _trainable_init(c["adapter"], abstract_base)
    algorithm = _algorithm(c, trainable_init, model_config)
    o = dict(c["optimizer"])
    rate = optimizer.schedule(
        steps=c["steps"],
        **{k: o.pop(k) for k in ("schedule", "learning_rate", "warmup_steps", "end_ratio", "decay_share")},
    )
    chain = optimizer.build(rate, **o)
    abstract_state = jax.eval_shape(
        lambda base: states.init(algorithm.init(jax.random.key(0), base), chain, jax.random.key(0)), abstract_base
    )
    train, examples, source, data_report = _data(c, tok, name)
    d = c["data"]
    shard = loader.Shard(jax.process_index(), jax.process_count())
    stream = loader.Loader(
        train,
        weights=d["weights"] or None,
        layout=d["layout"],
        batch_size=d["batch_size"],
        length=d["max_length"],
        buckets=_buckets(d),
        seed=c["seed"],
        shard=shard,
    )
    built = Experiment(
        config=c,
        model_dir=model_dir,
        model_config=model_config,
        tokenizer=tok,
        template=made,
        stop_ids=chat.stop_ids(tok, made),
        loader=stream,
        data_report=data_report,
        held_out=held_out.build(examples, source, tok, c["eval"], length=d["max_length"]),
        mesh=mesh,
        algorithm=algorithm,
        schedule=rate,
        optimizer=chain,
        abstract_base=abstract_base,
        abstract_state=abstract_state,
        derived={},
    )
    return dataclasses.replace(built, derived=_derived(built))


def _check_ranges(c: Mapping[str, Any]) -> None:
    """Raises on the first number that is out of its range; the range is part of the message."""
    rules: list[tuple[str, bool, str]] = [
        ("steps", c["steps"] >= 1, "at least 1"),
        ("microbatches", c["microbatches"] >= 1, "at least 1"),
        ("optimizer.learning_rate", c["optimizer"]["learning_rate"] > 0, "above 0"),
        ("optimizer.end_ratio", 0 <= c["optimizer"]["end_ratio"] <= 1, "between 0 and 1"),
        ("optimizer.b1", 0 <= c["optimizer"]["b1"] < 1, "in [0, 1)"),
        ("optimizer.b2", 0 <= c["optimizer"]["b2"] < 1, "in [0, 1)"),
        ("optimizer.weight_decay", c["optimizer"]["weight_decay"] >= 0, "at least 0"),
        ("optimizer.clip_norm", c["optimizer"]["clip_norm"] >= 0, "at least 0 (0: no clipping)"),
        ("adapter.rank", c["adapter"]["rank"] >= 1, "at least 1"),
        ("adapter.alpha", c["adapter"]["alpha"] > 0, "above 0"),
        ("adapter.dropout", 0 <= c["adapter"]["dropout"] < 1, "in [0, 1)"),
        ("data.batch_size", c["data"]["batch_size"] >= 1, "at least 1"),
        ("data.max_length", c["data"]["max_length"] >= 2, "at least 2"),
        ("eval.holdout", 0 < c["eval"]["holdout"] < 1, "between 0 and 1"),
        ("eval.rows", c["eval"]["rows"] >= 1, "at least 1"),
        ("eval.max_new_tokens", c["eval"]["max_new_tokens"] >= 1, "at least 1"),
        ("eval.generate_batch", c["eval"]["generate_batch"] >= 1, "at least 1"),
        ("checkpoint.keep_last", c["checkpoint"]["keep_last"] >= 1, "at least 1"),
    ]
    for name, holds, rule in rules:
        if not holds:
            value = configs.flatten(c)[name]
            raise UserError(f"config.{name} is {value}; it must be {rule}")
    choices = {
        "model.dtype": ("float32", "bfloat16"),
        "model.weights": ("float32", "bfloat16"),
        "model.remat": ("none", "dots", "full"),
        "checkpoint.use": ("last", "best"),
        "adapter.name": ("lora", "none"),
        "algorithm": ("sft",),
    }
    for name, known in choices.items():
        value = configs.flatten(c)[name]
        if value not in known:
            raise UserError(f"config.{name} is {value!r}.{lookup.suggestion(str(value), list(known))}")
    if c["data"]["batch_size"] % c["microbatches"]:
        raise UserError(
            f"config.microbatches {c['microbatches']} must divide config.data.batch_size {c['data']['batch_size']}"
        )


def _mesh(c: Mapping[str, Any]) -> jax.sharding.Mesh | None:
    """Returns the mesh, or None where one device does everything."""
    mesh = meshes.make(**c["mesh"])
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = c["data"]["batch_size"] // c["microbatches"]
    if rows % ways:
        raise UserError(
            f"a microbatch of {rows} rows (data.batch_size / microbatches) does not divide over {ways} devices "
            f"(mesh data x fsdp); pick a multiple of {ways * c['microbatches']} as data.batch_size"
        )
    return None if mesh.size == 1 else mesh


def _trainable_init(section: Mapping[str, Any], abstract_base: Any) -> Callable[[jax.Array, Any], Any]:
    """Returns `init(key, base)`: adapters, or for full fine-tuning the base's own weights in float32."""
    if section["name"] == "none":
        return lambda _, base: jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), base)
    targets = section["targets"]
    if "," in targets:
        targets = tuple(name.strip() for name in targets.split(",") if name.strip())
    elif targets != "all-linear" and targets.isidentifier():
        targets = (targets,)
    adapters_init.targeted(abstract_base, targets)
    return functools.partial(
        adapters_init.init,
        make=functools.partial(lora.init_one, dropout=section["dropout"], rslora=section["rslora"]),
        targets=targets,
        rank=section["rank"],
        alpha=section["alpha"],
        rank_pattern=pattern(section["rank_pattern"], int, "config.adapter.rank_pattern"),
        alpha_pattern=pattern(section["alpha_pattern"], float, "config.adapter.alpha_pattern"),
    )


def _algorithm(c: Mapping[str, Any], init: Callable[[jax.Array, Any], Any], config: ModelConfig) -> Algorithm:
    return {"sft": sft.make}[c["algorithm"]](init, config)


def _buckets(section: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the buckets up to the longest row that truncation lets through."""
    limit = section["max_length"]
    return (*(size for size in section["buckets"] if size < limit), limit)


def _data(
    c: Mapping[str, Any], tok: tokenizer.Tokenizer, name: str | None
) -> tuple[list[list[encode.Example]], list[encode.Example], list[records.Record], report.EncodeReport]:
    """Returns the training sets, the held-out examples, the records these come from, and the first set's report."""
    d, e = c["data"], c["eval"]
    read = functools.partial(
        encode.encode_file, tok=tok, template_name=name, max_length=d["max_length"], truncation=d["truncation"]
    )
    encoded = [read(path, train_on=d["train_on"]) for path in d["paths"]]
    if not encoded:
        raise UserError("config.data.paths is empty; name a file: --config.data.paths=train.jsonl")
    train, told = [examples for examples, _ in encoded], encoded[0][1]
    if e["path"]:
        examples, _ = read(e["path"], train_on=d["train_on"])
        chosen, source = examples[: e["rows"]], records.read(str(e["path"]))
    else:
        order = np.random.default_rng(np.random.SeedSequence((c["seed"], 1))).permutation(len(train[0]))
        count = min(e["rows"], max(1, round(e["holdout"] * len(order))))
        if count >= len(order):
            raise UserError(f"{d['paths'][0]} has {len(order)} rows, too few to hold some out; give config.eval.path")
        chosen, source = [train[0][i] for i in order[:count]], records.read(str(d["paths"][0]))
        train[0] = [train[0][i] for i in sorted(order[count:])]
    return train, chosen, source, told


def _derived(x: Experiment) -> dict[str, str]:
    """Returns the numbers that follow from the config, to be printed before the run."""
    c = x.config
    trainable, total = tree.count(x.abstract_state.trainable), tree.count(x.abstract_base)
    positions = c["data"]["batch_size"] * c["data"]["max_length"]
    size = lambda n: f"{n / 2**20:,.1f} MiB"
    return {
        "model": f"{x.model_config.family}, {total:,} parameters, {size(tree.nbytes(x.abstract_base))}",
        "trainable": f"{trainable:,} ({trainable / total:.2%}), {size(tree.nbytes(x.abstract_state.trainable))}",
        "optimizer": f"{c['optimizer']['name']}, {size(tree.nbytes(x.abstract_state.opt_state))}",
        "batch": f"{c['data']['batch_size']} rows in {c['microbatches']} part(s), up to {positions:,} tokens a step",
        "epoch": f"{x.loader.batches_per_epoch:.1f} steps; {c['steps']} steps are "
        f"{c['steps'] / x.loader.batches_per_epoch:.2f} epochs",
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        + (f", mesh {dict(x.mesh.shape)}" if x.mesh is not None else ""),
    }
