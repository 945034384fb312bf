"""The composition root: a config -> an experiment with every part built and checked, before a weight is read.

Config sections are read here and in the modules beside it (`run.py`, `evaluation.py`, `held_out.py`), nowhere below.
`build` needs files and shapes, no weights; `run.start` reads the weights.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import hashlib
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from ftjax import config as configs
from ftjax import held_out, inference, lookup, tree
from ftjax import mesh as meshes
from ftjax.adapters import adapter, tables
from ftjax.adapters import init as adapters_init
from ftjax.algorithms import sft
from ftjax.algorithms.algorithm import Algorithm
from ftjax.checkpoint import hf_import
from ftjax.data import batch as arrays
from ftjax.data import cache, chat, encode, loader, records, report, template, tokenizer
from ftjax.errors import UserError
from ftjax.models import params
from ftjax.models.config import ModelConfig
from ftjax.quant import convert
from ftjax.runs import weights_and_biases, writers
from ftjax.train import optimizer
from ftjax.train import state as states

# What a resumed run may change: nothing that decides which rows are trained on or asked.
MAY_CHANGE = ("steps", "log.", "eval.every", "eval.generate_batch", "checkpoint.", "stop.")

MANY_EPOCHS = 20  # from here on a run is told that it sees few rows often
Range = tuple[Callable[[Any], bool], str]
COUNT: Range = (lambda v: v >= 1, "at least 1")
NEVER_OR: Range = (lambda v: v >= 0, "at least 0 (0: never)")
POSITIVE: Range = (lambda v: 0 < v < math.inf, "above 0")
NOT_NEGATIVE: Range = (lambda v: 0 <= v < math.inf, "at least 0")
SHARE: Range = (lambda v: 0 <= v <= 1, "between 0 and 1")
BELOW_ONE: Range = (lambda v: 0 <= v < 1, "in [0, 1)")
RANGES: dict[str, Range] = {
    "seed": (lambda v: 0 <= v < 2**32, "between 0 and 2^32 - 1"),
    "steps": COUNT,
    "microbatches": COUNT,
    "model.unroll": COUNT,
    "quant.group": (lambda v: v == 0 or v >= 2, "at least 2 (0: the format's own)"),
    "adapter.rank": COUNT,
    "adapter.alpha": POSITIVE,
    "adapter.dropout": BELOW_ONE,
    "adapter.d_initial": POSITIVE,
    "adapter.projection_key": (lambda v: 0 <= v < 2**32, "between 0 and 2^32 - 1"),
    "adapter.modules_to_save": (lambda v: all(isinstance(name, str) for name in v), "names, (embed_tokens, lm_head)"),
    "adapter.trainable_tokens": (lambda v: all(isinstance(i, int) for i in v), "ids of tokens, (3, 7)"),
    "neftune_alpha": NOT_NEGATIVE,
    "data.paths": (lambda v: all(isinstance(path, str) for path in v), "paths of data files, (a.jsonl, b.jsonl)"),
    "data.weights": (lambda v: all(isinstance(x, int | float) and x > 0 for x in v), "numbers above 0, one a path"),
    "data.batch_size": COUNT,
    "data.max_length": (lambda v: v >= 2, "at least 2"),
    "data.buckets": (lambda v: all(isinstance(size, int) and size >= 1 for size in v), "whole numbers above 0"),
    "optimizer.learning_rate": POSITIVE,
    "optimizer.end_ratio": SHARE,
    "optimizer.decay_share": SHARE,
    "optimizer.b1": BELOW_ONE,
    "optimizer.b2": BELOW_ONE,
    "optimizer.eps": POSITIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.clip_norm": (lambda v: 0 <= v < math.inf, "at least 0 (0: no clipping)"),
    "optimizer.lora_plus_ratio": POSITIVE,
    "optimizer.lora_plus_embedding": POSITIVE,
    "stop.spike_factor": NEVER_OR,
    "stop.patience": NEVER_OR,
    "eval.holdout": (lambda v: 0 < v < 1, "between 0 and 1"),
    "eval.rows": COUNT,
    "eval.every": NEVER_OR,
    "eval.batch_size": COUNT,
    "eval.max_new_tokens": COUNT,
    "eval.generate_batch": COUNT,
    "eval.samples": NEVER_OR,
    "log.every": NEVER_OR,
    "checkpoint.every": NEVER_OR,
    "checkpoint.keep_last": COUNT,
}
CHOICES = {
    "model.dtype": ("float32", "bfloat16"),
    "model.weights": ("float32", "bfloat16"),
    "model.remat": ("none", "dots", "full"),
    "optimizer.offload": ("none", "host"),
    "log.writers": writers.KINDS,
    "log.wandb": weights_and_biases.MODES,
    "checkpoint.use": ("last", "best"),
}

OF_TYPES = ("dropout", "rslora", "feedforward", "d_initial", "projection_key")  # of config.adapter, for `init_one`


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
    data_hash: str  # of the tokens of all rows, trained on or held out
    data_report: report.EncodeReport
    held_out: held_out.HeldOut
    mesh: jax.sharding.Mesh | None
    algorithm: Algorithm
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    abstract_base: Any
    abstract_state: states.TrainState
    state_shardings: Any  # None: wherever jax puts it
    derived: dict[str, str]


def use_compilation_cache() -> None:
    """Turns on XLA's persistent compilation cache, in xla/ of the cache folder."""
    jax.config.update("jax_compilation_cache_dir", str(cache.root() / "xla"))
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
    check(c, RANGES, CHOICES)
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
    abstract_base = _quantised(c, model_dir, params.abstract(model_config, c["model"]["weights"]))
    mesh = _mesh(c)
    if mesh is not None:
        meshes.check_groups(mesh, abstract_base, params.axes(model_config))
    trainable_init = _trainable_init(c["adapter"], abstract_base)
    algorithm = _algorithm(c, trainable_init, model_config)
    o = dict(c["optimizer"])
    rate = optimizer.schedule(
        steps=c["steps"],
        **{k: o.pop(k) for k in ("schedule", "learning_rate", "warmup_steps", "end_ratio", "decay_share")},
    )
    embedding_rate, offload = o.pop("lora_plus_embedding"), o.pop("offload")
    chain = optimizer.build(rate, **o)
    if o["lora_plus_ratio"] != 1:
        chain = optimizer.with_embedding_rate(chain, embedding_rate / c["optimizer"]["learning_rate"])
    abstract_state = jax.eval_shape(
        lambda base: states.init(algorithm.init(jax.random.key(0), base), chain, jax.random.key(0)), abstract_base
    )
    shardings = states.shardings(mesh, abstract_state, params.axes(model_config), offload=offload)
    train, examples, source, data_report = _data(c, tok, name)
    d = c["data"]
    asked = held_out.build(examples, source, tok, c["eval"], length=d["max_length"])
    check_context(model_config, (*itertools.chain(*train), *examples), asked)
    shard = loader.Shard(jax.process_index(), jax.process_count())
    stream = loader.Loader(
        train,
        collator=arrays.EXAMPLES,
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
        data_hash=_hash((*itertools.chain(*train), *examples)),
        data_report=data_report,
        held_out=asked,
        mesh=mesh,
        algorithm=algorithm,
        schedule=rate,
        optimizer=chain,
        abstract_base=abstract_base,
        abstract_state=abstract_state,
        state_shardings=shardings,
        derived={},
    )
    return dataclasses.replace(built, derived=_derived(built))


def check(c: Mapping[str, Any], ranges: Mapping[str, Range], choices: Mapping[str, tuple[str, ...]]) -> None:
    """Raises on the first value of a config that is out of its range or not among its choices, which are named."""
    values = configs.flatten(c)
    for name, (holds, rule) in ranges.items():
        if not holds(values[name]):
            raise UserError(f"config.{name} is {values[name]}; it must be {rule}")
    for name, known in choices.items():
        given = values[name]
        for value in given if isinstance(given, tuple) else (given,):
            if value not in known:
                raise UserError(f"config.{name} is {value!r}.{lookup.suggestion(str(value), list(known))}")


def _mesh(c: Mapping[str, Any]) -> jax.sharding.Mesh | None:
    """Returns the mesh, or None where one device does everything."""
    mesh = meshes.make(**c["mesh"])
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if c["data"]["batch_size"] % c["microbatches"]:
        raise UserError(
            f"config.microbatches {c['microbatches']} must divide config.data.batch_size {c['data']['batch_size']}"
        )
    rows = c["data"]["batch_size"] // c["microbatches"]
    if rows % ways:
        raise UserError(
            f"a microbatch of {rows} rows (data.batch_size / microbatches) does not divide over {ways} devices "
            f"(mesh data x fsdp); pick a multiple of {ways * c['microbatches']} as data.batch_size"
        )
    return None if mesh.size == 1 else mesh


def _quantised(c: Mapping[str, Any], model_dir: Path, abstract_base: Any) -> Any:
    """Returns the abstract base with the leaves in few bits that `config.quant` chooses, or that the folder has."""
    q = c["quant"]
    if q["format"] not in hf_import.formats():
        raise UserError(f"config.quant.format is {q['format']!r}.{lookup.suggestion(q['format'], hf_import.formats())}")
    plan = hf_import.plan(model_dir, q["format"], leaves=q["leaves"], group=q["group"])
    if plan and c["adapter"]["name"] == "none":
        what = f"config.quant.format {q['format']}" if q["format"] != "none" else f"{model_dir} is in few bits, which"
        raise UserError(
            f"{what} freezes the base, and config.adapter.name none trains it; pick an adapter or a dense base"
        )
    return convert.abstract_tree(abstract_base, plan)


def _trainable_init(section: Mapping[str, Any], abstract_base: Any) -> Callable[[jax.Array, Any], Any]:
    """Returns `init(key, base)`: adapters, or for full fine-tuning the base's own weights in float32."""
    if section["name"] == "none":
        return lambda _, base: jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), base)
    init_one = _part("adapter.name", section["name"], "ftjax.adapters", "init_one", also=("none",))
    of_types = {name: section[name] for name in OF_TYPES}
    given = ("rank", "alpha", "path", "largest")  # by the init of the whole tree
    hyper = {name: of_types[name] for name in configs.hyper_parameters(init_one) if name not in given}
    targets = section["targets"]
    if "," in targets:
        targets = tuple(name.strip() for name in targets.split(",") if name.strip())
    elif targets != "all-linear" and targets.isidentifier():
        targets = (targets,)
    adapters_init.targeted(abstract_base, targets)
    adapters = functools.partial(
        adapters_init.init,
        make=functools.partial(init_one, **hyper),
        targets=targets,
        rank=section["rank"],
        alpha=section["alpha"],
        rank_pattern=pattern(section["rank_pattern"], int, "config.adapter.rank_pattern"),
        alpha_pattern=pattern(section["alpha_pattern"], float, "config.adapter.alpha_pattern"),
    )
    more = {name: section[name] for name in ("trainable_tokens", "modules_to_save", "ensure_weight_tying")}
    return lambda key, base: tables.add(adapters(key, base), base, **more)


def _algorithm(c: Mapping[str, Any], init: Callable[[jax.Array, Any], Any], config: ModelConfig) -> Algorithm:
    made = _part("algorithm", c["algorithm"], "ftjax.algorithms", "make", also=())(init, config)
    if not c["neftune_alpha"]:
        return made
    if c["algorithm"] != "sft":
        raise UserError(f"config.neftune_alpha is for the algorithm sft, not {c['algorithm']}; set 0")
    return sft.make_neftune(init, config, alpha=c["neftune_alpha"])


def _part(key: str, name: str, package: str, function: str, *, also: tuple[str, ...]) -> Callable[..., Any]:
    """Returns `function` of the module `name` in a package; the modules that define it are the names there are."""
    known = [entry.partition(".")[0] for entry in lookup.catalogue(package) if entry.endswith(f".{function}")]
    if name not in known:
        raise UserError(f"config.{key} is {name!r}.{lookup.suggestion(name, [*known, *also])}")
    return lookup.lookup(package, f"{name}.{function}")


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
        held, kept = held_out.split(len(train[0]), most=e["rows"], share=e["holdout"], seed=c["seed"])
        if not len(kept):
            raise UserError(f"{d['paths'][0]} has {len(held)} rows, too few to hold some out; give config.eval.path")
        chosen, source = [train[0][i] for i in held], records.read(str(d["paths"][0]))
        train[0] = [train[0][i] for i in kept]
    return train, chosen, source, told


def check_context(config: ModelConfig, examples: Iterable[encode.Example], asked: held_out.HeldOut) -> None:
    """Raises where a row, or a question with the answer that it may get, is longer than the model's context."""
    longest = max(examples, key=lambda example: len(example.ids))
    if len(longest.ids) > config.context:
        raise UserError(
            f"{longest.where}: a row of {len(longest.ids)} tokens, but the context of the model is "
            f"{config.context}; set config.data.max_length to that at most"
        )
    prompt = max((len(item.prompt_ids) for item in asked.items), default=0)
    if asked.items and prompt + asked.max_new_tokens > config.context:
        raise UserError(
            f"a held-out prompt of {prompt} tokens and config.eval.max_new_tokens {asked.max_new_tokens} exceed the "
            f"context of the model, {config.context}; lower config.eval.max_new_tokens or config.data.max_length"
        )


def _hash(examples: Iterable[encode.Example]) -> str:
    """Returns what stands for the data of a run: a resumed run must find the same."""
    total = hashlib.sha256()
    for example in examples:
        total.update(example.ids.tobytes())
        total.update(example.mask.tobytes())
    return total.hexdigest()


def _derived(x: Experiment) -> dict[str, str]:
    """Returns the numbers that follow from the config, to be printed before the run."""
    c = x.config
    trained = adapter.trained(x.abstract_state.trainable)
    trainable, total = tree.count(trained), tree.count(x.abstract_base)
    positions = c["data"]["batch_size"] * c["data"]["max_length"]
    epochs = c["steps"] / x.loader.batches_per_epoch
    held = c["eval"]["path"] or f"{c['data']['paths'][0]}, not trained on"
    return {
        "model": f"{x.model_config.family}, {total:,} parameters, {_size(tree.nbytes(x.abstract_base))}",
        "trainable": f"{trainable:,} ({trainable / total:.2%}), {_size(tree.nbytes(trained))}",
        "optimizer": f"{c['optimizer']['name']}, {_size(tree.nbytes(x.abstract_state.opt_state))}"
        + (", in host memory" if c["optimizer"]["offload"] == "host" else ""),
        "batch": f"{c['data']['batch_size']} rows in {c['microbatches']} part(s), up to {positions:,} tokens a step",
        "epoch": f"{x.loader.batches_per_epoch:.1f} steps; {c['steps']} steps are {epochs:.2f} epochs"
        + ("; many for so few rows, lower config.steps or config.data.batch_size" if epochs > MANY_EPOCHS else ""),
        "held out": f"{x.held_out.rows:,} rows of {held}",
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        + (f", mesh {dict(x.mesh.shape)}" if x.mesh is not None else ""),
    }


def _size(count: int) -> str:
    """Returns bytes in the unit that is easy to read."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
