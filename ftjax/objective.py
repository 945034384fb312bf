"""What trains, and on which loss: the sections adapter, loss and reference of a config -> an algorithm."""

from collections.abc import Callable, Mapping
import functools
import inspect
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ftjax import config as configs
from ftjax import lookup, tree
from ftjax.adapters import adapter, tables
from ftjax.adapters import init as adapters_init
from ftjax.algorithms import dpo, kto, reward_model, sft
from ftjax.algorithms.algorithm import Algorithm
from ftjax.checkpoint import peft
from ftjax.errors import UserError
from ftjax.losses import divergence, preference, reference_free, unpaired
from ftjax.models.config import ModelConfig

OF_TYPES = ("dropout", "rslora", "feedforward", "d_initial", "projection_key")  # of config.adapter, for `init_one`
COUPLED = ("weights", "kl")  # a loss that takes one of these looks at the whole batch
REWARDS = ("bradley_terry", "pointwise")
# By algorithm: keys that its config alone has, and the function of configs/defaults.py that makes one.
OWN = {
    "sft": (("neftune_alpha",), "sft"),
    "dpo": (("loss.names", "reference.kind"), "dpo"),
    "kto": (("loss.desirable_weight", "reference.kind"), "kto"),
    "reward_model": (("loss.margin_scale",), "reward"),
    "ppo": (("loss.value_clip", "rollout.samples"), "ppo"),
    "grpo": (("loss.normaliser", "rollout.samples"), "grpo"),
    "raft": (("rollout.samples",), "raft"),
    "online_dpo": (("loss.beta", "rollout.samples"), "online_dpo"),
}
Init = Callable[[jax.Array, Any], Any]


class Objective(NamedTuple):
    """An algorithm, and what it must be fed."""

    algorithm: Algorithm
    data: str  # rows, pairs, labels, prompts
    mismatched: bool = False  # completions of other rows beside each prompt's own
    reward: bool = False  # what trains is a reward model, which generates nothing
    rollout: Any = None  # rl.rollout.Rollout of an algorithm that learns from its own samples


class Start(NamedTuple):
    """What training goes on from, on the host; None: new adapters."""

    adapters: Any
    value: Any = None  # adapters and head of a value model


def build(c: Mapping[str, Any], abstract_base: Any, config: ModelConfig) -> Objective:
    """Returns the objective of a config; what does not fit together is a UserError."""
    init = trainable_init(c["adapter"], abstract_base)
    name = c["algorithm"]
    part("algorithm", name, "ftjax.algorithms", "make", also=())
    _check_sections(c, name)
    if name in ("dpo", "kto") and c["adapter"]["dropout"]:
        raise UserError(
            f"config.adapter.dropout is {c['adapter']['dropout']}, but {name} compares two models, which dropout would "
            "make noise of; set 0"
        )
    if "rollout" in c:  # what it learns from is not read yet: `rollouts.build` makes the algorithm
        return Objective(sft.make(init, config), "prompts")
    made = {"sft": _sft, "dpo": _dpo, "kto": _kto, "reward_model": _reward}[name](c, init, config)
    if made.reward:
        _check_head(jax.eval_shape(lambda base: init(jax.random.key(0), base), abstract_base))
    return made


def _check_head(trainable: Any) -> None:
    """Raises where a reward model would train the head of a language model, which it does not have."""
    if trainable.lm_head is not None:
        raise UserError(
            "config.adapter trains lm_head, but a reward model has a head of one number in its place; take it out of "
            "targets and modules_to_save"
        )


def _check_sections(c: Mapping[str, Any], name: str) -> None:
    """Raises where the sections of a config are those of another algorithm than it names."""
    if name not in OWN:
        raise UserError(f"config.algorithm {name!r} has no section of its own here; take {', '.join(OWN)}")
    keys, function = OWN[name]
    missing = [key for key in keys if key not in configs.flatten(c)]
    if missing:
        raise UserError(
            f"config.algorithm is {name}, but the config has no {missing[0]}, so it is one of another algorithm; take "
            f"a config file that calls defaults.{function}(), as those in configs/smoke/"
        )


def _sft(c: Mapping[str, Any], init: Init, config: ModelConfig) -> Objective:
    alpha = c["neftune_alpha"]
    made = sft.make_neftune(init, config, alpha=alpha) if alpha else sft.make(init, config)
    return Objective(made, "rows")


def _dpo(c: Mapping[str, Any], init: Init, config: ModelConfig) -> Objective:
    section = c["loss"]
    names, weights = section["names"], section["weights"] or (1.0,) * len(section["names"])
    if not names:
        raise UserError("config.loss.names is empty; name a loss: --config.loss.names=dpo")
    if len(weights) != len(names):
        raise UserError(
            f"config.loss.weights {weights} must be {len(names)} as config.loss.names {names}, or empty (1 each)"
        )
    if len(set(names)) < len(names):
        raise UserError(
            f"config.loss.names {names} has one twice; name it once, with its weight in config.loss.weights"
        )
    terms = tuple(_term(name, weight, section) for name, weight in zip(names, weights, strict=True))
    if section["label_smoothing"] and not any("label_smoothing" in term.hyper for term in terms):
        raise UserError(
            f"config.loss.label_smoothing is {section['label_smoothing']}, which {', '.join(names)} does not take; "
            "set 0"
        )
    if section["ld_alpha"] != 1 and any("lengths" in term.needs for term in terms):
        raise UserError(
            f"config.loss.ld_alpha is {section['ld_alpha']}, which makes tokens lighter in a sum; "
            f"{', '.join(t.name for t in terms if 'lengths' in t.needs)} is of means over tokens; set 1"
        )
    f = _divergence(section, names)
    _whole_batch(c, {term.name: term.needs for term in terms})
    kind = _reference(c, wanted=any("reference" in term.needs for term in terms), names=names)
    made = dpo.make(
        init,
        config,
        terms=terms,
        beta=section["beta"],
        divergence=f,
        ld_alpha=section["ld_alpha"],
        wpo=section["wpo"],
        reference=kind,
        sync=dpo.Sync(c["reference"]["sync_every"], c["reference"]["sync_alpha"]),
    )
    return Objective(_held_against_base(made, c), "pairs")


def _held_against_base(made: Algorithm, c: Mapping[str, Any]) -> Algorithm:
    """Returns the algorithm, measured against its base where the loss runs no reference: it is there, and free."""
    alone = not (c["adapter"]["path"] or c["reference"]["model"] or c["adapter"]["name"] == "none")
    return made._replace(reference=lambda base: base) if made.reference is None and alone else made


def _term(name: str, weight: float, section: Mapping[str, Any]) -> dpo.Term:
    known = pair_losses(preference, reference_free)
    if name not in known:
        raise UserError(f"config.loss.names has {name!r}.{lookup.suggestion(name, list(known))}")
    function = known[name]
    if name == "exo_pair" and not section["label_smoothing"]:
        raise UserError("config.loss.label_smoothing is 0, but exo_pair is not finite without; the paper takes 0.001")
    loss = bound(function, section)
    return dpo.Term(name=name, loss=loss, needs=needs_of(function), hyper=frozenset(loss.keywords), weight=weight)


def pair_losses(*modules: ModuleType) -> dict[str, Callable[..., preference.Loss]]:
    """Returns the losses of pairs of some modules by name."""
    return {
        word: found
        for module in modules
        for word, found in vars(module).items()
        if inspect.isfunction(found) and inspect.signature(found).return_annotation == preference.Loss
    }


def bound(function: Callable[..., Any], section: Mapping[str, Any]) -> functools.partial[Any]:
    """Returns a loss with its hyper-parameters of config.loss."""
    return functools.partial(function, **{word: section[word] for word in configs.hyper_parameters(function)})


def needs_of(function: Callable[..., Any]) -> frozenset[str]:
    """Returns the names of what a loss takes beside its hyper-parameters."""
    return frozenset(inspect.signature(function).parameters) - set(configs.hyper_parameters(function))


def _divergence(section: Mapping[str, Any], names: tuple[str, ...]) -> Callable[[jax.Array], jax.Array] | None:
    """Returns the shape of log-ratios, None for the reverse KL, which changes nothing."""
    name = section["divergence"]
    known = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
    if name not in known:
        raise UserError(f"config.loss.divergence is {name!r}.{lookup.suggestion(name, list(known))}")
    if name == "reverse_kl":
        return None
    wrong = [loss for loss in names if loss not in divergence.DIFFERENCE_BASED]
    if wrong:
        raise UserError(
            f"config.loss.divergence {name} goes with losses of a difference of log-ratios "
            f"({', '.join(divergence.DIFFERENCE_BASED)}), not with {wrong[0]}; set config.loss.divergence=reverse_kl"
        )
    if name == "alpha_divergence":
        return functools.partial(divergence.alpha_divergence, coefficient=section["alpha"])
    return {"forward_kl": divergence.forward_kl, "js_divergence": divergence.js_divergence}[name]


def _kto(c: Mapping[str, Any], init: Init, config: ModelConfig) -> Objective:
    section, known = c["loss"], ("kto", "apo_zero_unpaired")
    if section["name"] not in known:
        raise UserError(f"config.loss.name is {section['name']!r}.{lookup.suggestion(section['name'], list(known))}")
    function = getattr(unpaired, section["name"])
    loss_of, needs = bound(function, section), needs_of(function)
    _whole_batch(c, {section["name"]: needs})
    made = kto.make(
        init,
        config,
        loss_of=loss_of,
        needs=needs,
        beta=section["beta"],
        reference=_reference(c, wanted=True, names=(section["name"],)),
        sync=dpo.Sync(c["reference"]["sync_every"], c["reference"]["sync_alpha"]),
    )
    return Objective(_held_against_base(made, c), "labels", mismatched="kl" in needs)


def _reward(c: Mapping[str, Any], init: Init, config: ModelConfig) -> Objective:
    section = c["loss"]
    if c["adapter"]["name"] == "none":
        raise UserError(
            "config.adapter.name none with algorithm reward_model: a reward model is a head beside an adapter here, so "
            "that several share a base; take lora"
        )
    if section["name"] not in REWARDS:
        raise UserError(f"config.loss.name is {section['name']!r}.{lookup.suggestion(section['name'], list(REWARDS))}")
    if section["name"] == "pointwise":
        if section["margin_scale"] or section["centring"]:
            raise UserError("config.loss: margin_scale and centring are of pairs; set both to 0 for pointwise")
        return Objective(reward_model.make_pointwise(init, config), "labels", reward=True)
    made = reward_model.make(init, config, margin_scale=section["margin_scale"], centring=section["centring"])
    return Objective(made, "pairs", reward=True)


def _whole_batch(c: Mapping[str, Any], needs: Mapping[str, frozenset[str]]) -> None:
    """Raises where a loss that looks at the whole batch would be given a part of it."""
    coupled = [name for name, words in needs.items() if words & set(COUPLED)]
    if coupled and c["microbatches"] > 1:
        raise UserError(
            f"config.microbatches is {c['microbatches']}, but {coupled[0]} is of a whole batch: parts would give "
            "another loss; set 1, with a smaller config.data.batch_size or model.remat=full where memory is short"
        )


def _reference(c: Mapping[str, Any], *, wanted: bool, names: tuple[str, ...]) -> str:
    """Returns how the algorithm comes by the reference; a contradiction is a UserError."""
    section = c["reference"]
    kind, fixed, path = section["kind"], section["cache"] or section["model"], c["adapter"]["path"]
    if kind not in ("base", "start", "none"):
        raise UserError(f"config.reference.kind is {kind!r}.{lookup.suggestion(kind, ['base', 'start', 'none'])}")
    if wanted and kind == "none":
        raise UserError(
            f"config.reference.kind is none, but {names[0]} is held against a reference; set "
            "config.reference.kind=base, or start"
        )
    if not wanted:
        given = [key for key in ("cache", "model", "sync_every") if section[key]]
        if kind != "none" or given:
            what, instead = (
                ("kind", "none") if kind != "none" else (given[0], {"cache": "false", "model": "''"}.get(given[0], "0"))
            )
            raise UserError(
                f"config.reference.{what} is {section[what]}, but {', '.join(names)} needs no reference; set "
                f"config.reference.{what}={instead}"
            )
        return "none"
    if section["model"] and not section["cache"]:
        raise UserError(
            f"config.reference.model is {section['model']}, whose log-probabilities are computed before training; set "
            "config.reference.cache=true"
        )
    if section["sync_every"] and (kind != "start" or fixed):
        raise UserError(
            f"config.reference.sync_every is {section['sync_every']}, and what it moves is a copy; set "
            "config.reference.kind=start and config.reference.cache=false, or sync_every=0"
        )
    if kind == "base" and path and not section["model"]:
        raise UserError(
            "config.reference.kind base with config.adapter.path: training would begin away from its reference; set "
            "config.reference.kind=start, which is the base with that adapter"
        )
    if fixed:
        return "cached"
    if kind == "base" and c["adapter"]["name"] == "none":
        raise UserError(
            "config.reference.kind base with config.adapter.name none: full fine-tuning changes the base; set "
            "config.reference.cache=true (no second copy of the weights), or config.reference.kind=start (a copy)"
        )
    return str(kind)


def trainable_init(section: Mapping[str, Any], abstract_base: Any) -> Init:
    """Returns `init(key, base)`: adapters, or for full fine-tuning the base's own weights in float32."""
    if section["name"] == "none":
        return lambda _, base: jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), base)
    init_one = part("adapter.name", section["name"], "ftjax.adapters", "init_one", also=("none",))
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


def start(section: Mapping[str, Any], abstract_base: Any, config: ModelConfig) -> Any:
    """Returns the adapters of config.adapter.path, on the host; None where training begins with new ones."""
    path = section["path"]
    if not path:
        return None
    if section["name"] == "none":
        raise UserError(
            "config.adapter.path is an adapter, but config.adapter.name none trains the base; give its name"
        )
    return peft.load(path, abstract_base, config)


def check_start(section: Mapping[str, Any], given: Any, trainable: Any) -> None:
    """Raises where the adapters to go on from are not of the kind, targets, ranks and scales of the config."""
    if given.score is not None and trainable.score is None:
        raise UserError(
            f"config.adapter.path {section['path']} is a reward model, whose adapter and head belong together; go on "
            "from it with config.algorithm=reward_model, or from the adapter of a policy"
        )
    at = lambda tree_of: tree.paths(tree_of.replace(score=None), adapter.is_adapter)
    theirs, ours = at(given), at(trainable)
    for name in sorted(theirs.keys() | ours.keys()):
        one, other = (_described(nodes.get(name)) for nodes in (theirs, ours))
        if one != other:
            raise UserError(
                f"config.adapter.path {section['path']}: {name} is {one} there and {other} by config.adapter; set "
                "name, targets, rank, alpha and the like to those of the adapter"
            )


def _described(node: Any) -> str:
    """Returns kind, shapes and constants of an adapter in words; dropout, which holds for training alone, not."""
    if not adapter.is_adapter(node):
        return "none" if node is None else f"a copy {tuple(node.shape)}"
    fields = {name: getattr(node, name) for name in node.__dataclass_fields__ if name != "dropout"}
    shown = {name: tuple(value.shape) if hasattr(value, "shape") else value for name, value in fields.items()}
    return f"{type(node).__name__}({', '.join(f'{name}={value}' for name, value in shown.items())})"


def pattern(text: str, kind: type, name: str) -> dict[str, Any]:
    """Returns `{"q_proj": 16}` for "q_proj=16,..."."""
    found = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = piece.partition("=")
        try:
            found[key.strip()] = kind(value)
        except ValueError:
            equals = ""
        if not equals:
            raise UserError(f"{name}: {piece!r} must be NAME={kind.__name__}, for example q_proj=16")
    return found


def part(key: str, name: str, package: str, function: str, *, also: tuple[str, ...]) -> Callable[..., Any]:
    """Returns `function` of the module `name` in a package; the modules that define it are the names there are."""
    known = [entry.partition(".")[0] for entry in lookup.catalogue(package) if entry.endswith(f".{function}")]
    if name not in known:
        raise UserError(f"config.{key} is {name!r}.{lookup.suggestion(name, [*known, *also])}")
    return lookup.lookup(package, f"{name}.{function}")
