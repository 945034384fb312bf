"""The composition root: a config -> an experiment with every part built and checked, before a weight is read.

Config sections are read here and in the modules beside it (`run.py`, `evaluation.py`, `held_out.py`), nowhere below.
`build` needs files and shapes, no weights; `run.start` reads the weights.
"""

from collections.abc import Callable, Mapping
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import ml_collections
import optax

from ftjax import config as configs
from ftjax import held_out, inference, lookup, objective, retention, rollouts, training_data, tree
from ftjax import mesh as meshes
from ftjax.adapters import adapter
from ftjax.algorithms.algorithm import Algorithm
from ftjax.checkpoint import hf_import
from ftjax.data import cache, candidates, chat, loader, template, tokenizer
from ftjax.errors import UserError
from ftjax.models import params
from ftjax.models.config import ModelConfig
from ftjax.quant import convert
from ftjax.runs import weights_and_biases, writers
from ftjax.train import epochs, optimizer
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
    "steps": (lambda v: v >= 0, "at least 0 (0: one epoch)"),
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
    "eval.kl_prompts": NEVER_OR,
    "retention.rows": COUNT,
    "retention.max_length": (lambda v: v >= 2, "at least 2"),
    "loss.names": (lambda v: all(isinstance(name, str) for name in v), "names of losses, (dpo, sft)"),
    "loss.weights": (lambda v: all(isinstance(x, int | float) and 0 < x < math.inf for x in v), "numbers above 0"),
    "loss.beta": POSITIVE,
    "loss.label_smoothing": (
        lambda v: 0 <= v < 0.5,
        "in [0, 0.5): half of the labels flipped tell nothing",
    ),
    "loss.tau": POSITIVE,
    "loss.gamma": NOT_NEGATIVE,
    "loss.alpha": (math.isfinite, "a number"),
    "loss.cpo_alpha": NOT_NEGATIVE,
    "loss.ld_alpha": SHARE,
    "loss.desirable_weight": POSITIVE,
    "loss.undesirable_weight": POSITIVE,
    "loss.margin_scale": NOT_NEGATIVE,
    "loss.centring": NOT_NEGATIVE,
    "normalise.rows": (lambda v: v >= 2, "at least 2"),
    "reference.sync_every": NEVER_OR,
    "reference.sync_alpha": SHARE,
    "data.row_length": (lambda v: v >= 0, "at least 0 (0: as long as the largest row needs)"),
    "rollout.samples": COUNT,
    "rollout.max_new_tokens": COUNT,
    "rollout.temperature": POSITIVE,
    "rollout.top_k": (lambda v: v >= 0, "at least 0 (0: all tokens)"),
    "rollout.top_p": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "rollout.min_p": BELOW_ONE,
    "rollout.slots": (lambda v: v >= 0, "at least 0 (0: all completions at once)"),
    "rollout.stop_from": (lambda v: v >= 0, "at least 0"),
    "rollout.sync_every": COUNT,
    "rewards.weights": (lambda v: all(isinstance(x, int | float) and math.isfinite(x) for x in v), "numbers"),
    "rewards.timeout": POSITIVE,
    "rewards.workers": COUNT,
    "rewards.missing_end_value": (math.isfinite, "a number"),
    "rewards.overlong": NEVER_OR,
    "rewards.overlong_buffer": COUNT,
    "updates.epochs": COUNT,
    "updates.minibatches": COUNT,
    "updates.most_approx_kl": NEVER_OR,
    "value.rate_ratio": POSITIVE,
    "loss.kl_coefficient": NOT_NEGATIVE,
    "loss.kl_target": POSITIVE,
    "loss.kl_gain": POSITIVE,
    "loss.kl_horizon": POSITIVE,
    "loss.clip_low": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "loss.clip_high": POSITIVE,
    "loss.dual_clip": (lambda v: v == 0 or v > 1, "above 1 (0: no limit)"),
    "loss.value_clip": POSITIVE,
    "loss.value_coefficient": NOT_NEGATIVE,
    "loss.lam": SHARE,
    "loss.ddof": (lambda v: v in (0, 1), "0 or 1"),
    "loss.importance_cap": NEVER_OR,
    "loss.text_coefficient": NOT_NEGATIVE,
    "loss.groups": NEVER_OR,
    "stop.kl": NEVER_OR,
    "log.samples": NEVER_OR,
    "log.every": NEVER_OR,
    "checkpoint.every": NEVER_OR,
    "checkpoint.keep_last": COUNT,
}
CHOICES = {
    "data.equal": candidates.EQUAL,
    "data.prefix": candidates.PREFIXES,
    "loss.kl_estimator": ("k1", "k3"),
    "loss.score_at": ("last", "next"),
    "loss.kl_in": ("loss", "reward"),
    "rewards.missing_end": rollouts.ENDINGS,
    "loss.kl_controller": rollouts.CONTROLLERS,
    "model.dtype": ("float32", "bfloat16"),
    "model.weights": ("float32", "bfloat16"),
    "model.remat": ("none", "dots", "full"),
    "optimizer.offload": ("none", "host"),
    "log.writers": writers.KINDS,
    "log.wandb": weights_and_biases.MODES,
    "checkpoint.use": ("last", "best"),
}


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
    data: training_data.Data
    held_out: Any  # held_out.HeldOut, or of preferences
    retention: held_out.HeldOut | None
    mesh: jax.sharding.Mesh | None
    start: objective.Start
    objective: objective.Objective
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    plan: epochs.Plan | None  # of updates in a step; None: one
    abstract_base: Any
    abstract_state: states.TrainState
    state_shardings: Any  # None: wherever jax puts it
    derived: dict[str, str]

    @property
    def algorithm(self) -> Algorithm:
        """Returns the algorithm of the objective."""
        return self.objective.algorithm


def use_compilation_cache() -> None:
    """Turns on XLA's persistent compilation cache, in xla/ of the cache folder."""
    jax.config.update("jax_compilation_cache_dir", str(cache.root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as nested dicts, tuples kept."""
    return config.to_dict()


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
    _check_reference(c, tok, model_dir)
    abstract_base = _quantised(c, model_dir, params.abstract(model_config, c["model"]["weights"]))
    mesh = _mesh(c)
    if mesh is not None:
        meshes.check_groups(mesh, abstract_base, params.axes(model_config))
    aim = objective.build(c, abstract_base, model_config)
    start = objective.Start(
        objective.start(c["adapter"], abstract_base, model_config),
        rollouts.value_start(c, abstract_base, model_config) if "value" in c else None,
    )
    shard = loader.Shard(jax.process_index(), jax.process_count())
    data = training_data.read(c, aim, tok, name, shard)
    if aim.data == "prompts":
        aim = rollouts.build(
            c,
            aim,
            objective.trainable_init(c["adapter"], abstract_base),
            model_config,
            abstract_base=abstract_base,
            prompts=list(itertools.chain(*data.train)),
            tok=tok,
            stop_ids=chat.stop_ids(tok, made),
            mesh=mesh,
        )
    asked = training_data.hold_out(data, aim, tok, c, model_config)
    training_data.check_context(model_config, (*itertools.chain(*data.train), *data.chosen), asked)
    training_data.check_length(model_config, c, aim, data)
    kept = retention.build(c, tok, name, model_config)
    stream = data.stream(data.train)
    if not c["steps"]:
        c = training_data.of_one_epoch(c, math.ceil(stream.batches_per_epoch))
    o = dict(c["optimizer"])
    rate = optimizer.schedule(
        steps=c["steps"],
        **{k: o.pop(k) for k in ("schedule", "learning_rate", "warmup_steps", "end_ratio", "decay_share")},
    )
    embedding_rate, offload = o.pop("lora_plus_embedding"), o.pop("offload")
    plan = rollouts.plan(c)
    updates = plan.epochs * plan.minibatches if plan else 1  # the rate is that of a step for all its updates
    chain = optimizer.build(rate if updates == 1 else lambda count: rate(count // updates), **o)
    if "value" in c and c["value"]["rate_ratio"] != 1:
        chain = optimizer.with_rate_of(chain, r"value\..*", c["value"]["rate_ratio"])
    if o["lora_plus_ratio"] != 1:
        chain = optimizer.with_embedding_rate(chain, embedding_rate / c["optimizer"]["learning_rate"])
    if start.adapters is not None:
        fresh = jax.eval_shape(lambda base: aim.algorithm.init(jax.random.key(0), base), abstract_base)
        objective.check_start(c["adapter"], start.adapters, aim.algorithm.policy(fresh))
    begin = lambda base, given: states.begin(
        rollouts.going_on(aim.algorithm, given), base, chain, jax.random.key(0)
    )  # fmt: skip
    abstract_state = jax.eval_shape(begin, abstract_base, start)
    shardings = states.shardings(mesh, abstract_state, params.axes(model_config), offload=offload)
    built = Experiment(
        config=c,
        model_dir=model_dir,
        model_config=model_config,
        tokenizer=tok,
        template=made,
        stop_ids=chat.stop_ids(tok, made),
        loader=stream,
        data=data,
        held_out=asked,
        retention=kept,
        mesh=mesh,
        objective=aim,
        start=start,
        schedule=rate,
        optimizer=chain,
        plan=plan,
        abstract_base=abstract_base,
        abstract_state=abstract_state,
        state_shardings=shardings,
        derived={},
    )
    return dataclasses.replace(built, derived=_derived(built))


def check(c: Mapping[str, Any], ranges: Mapping[str, Range], choices: Mapping[str, tuple[str, ...]]) -> None:
    """Raises on the first value of a config that is out of its range or not among its choices, which are named.

    Sections differ with the algorithm: what a config does not have is not looked at.
    """
    values = configs.flatten(c)
    for name, (holds, rule) in ranges.items():
        if name in values and not holds(values[name]):
            raise UserError(f"config.{name} is {values[name]}; it must be {rule}")
    for name, known in choices.items():
        if name not in values:
            continue
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


def _check_reference(c: Mapping[str, Any], tok: tokenizer.Tokenizer, model_dir: Path) -> None:
    """Raises where the other model that is the reference is not there, or reads other tokens."""
    other = c["reference"]["model"] if "reference.model" in configs.flatten(c) else ""
    if not other:
        return
    if tokenizer.load(inference.folder_of(other)).fingerprint != tok.fingerprint:
        raise UserError(
            f"config.reference.model {other} has another tokenizer than {model_dir}, so its log-probabilities are of "
            "other tokens; take a model with the same one"
        )


def _derived(x: Experiment) -> dict[str, str]:
    """Returns the numbers that follow from the config, to be printed before the run."""
    c = x.config
    trained = adapter.trained(x.abstract_state.trainable)
    trainable, total = tree.count(trained), tree.count(x.abstract_base)
    positions = c["data"]["batch_size"] * x.data.length
    epochs = c["steps"] / x.loader.batches_per_epoch
    held = c["eval"]["path"] or f"{c['data']['paths'][0]}, not trained on"
    twins = training_data.twins(x.data)
    held += f", nor are {twins:,} equal to them" if twins else ""
    return {
        "model": f"{x.model_config.family}, {total:,} parameters, {_size(tree.nbytes(x.abstract_base))}",
        "trainable": f"{trainable:,} ({trainable / total:.2%}), {_size(tree.nbytes(trained))}",
        "optimizer": f"{c['optimizer']['name']}, {_size(tree.nbytes(x.abstract_state.opt_state))}"
        + (", in host memory" if c["optimizer"]["offload"] == "host" else ""),
        "batch": _batch(c, positions),
        "epoch": f"{x.loader.batches_per_epoch:.1f} steps; {c['steps']} steps are {epochs:.2f} epochs"
        + ("; many for so few rows, lower config.steps or config.data.batch_size" if epochs > MANY_EPOCHS else ""),
        "held out": f"{x.held_out.rows:,} rows of {held}",
        **({} if x.objective.reward else {"retention": retention.told(x.retention, c["retention"]["path"])}),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        + (f", mesh {dict(x.mesh.shape)}" if x.mesh is not None else ""),
    }


def _batch(c: Mapping[str, Any], positions: int) -> str:
    """Returns what a step works through, in words."""
    rows = c["data"]["batch_size"]
    if "rollout" not in c:
        return f"{rows} rows in {c['microbatches']} part(s), up to {positions:,} tokens a step"
    r, u = c["rollout"], c["updates"]
    return (
        f"{rows} prompts x {r['samples']} completions of up to {r['max_new_tokens']} tokens a step, "
        f"{u['epochs'] * u['minibatches']} update(s) from them"
    )


def _size(count: int) -> str:
    """Returns bytes in the unit that is easy to read."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
