"""The sections rollout, rewards, updates and loss of a config -> an algorithm that learns from its own samples.

Numbers in brackets are the details of docs/ppo.md.
"""

from collections.abc import Callable, Mapping
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import hosts, inference, lookup, objective, scoring
from ftjax import mesh as meshes
from ftjax.adapters import attach
from ftjax.algorithms import grpo, on_policy, online_dpo, ppo, raft
from ftjax.algorithms.algorithm import Algorithm
from ftjax.checkpoint import peft
from ftjax.data import prompts as prompt_data
from ftjax.data import tokenizer
from ftjax.errors import UserError
from ftjax.losses import preference
from ftjax.models import heads
from ftjax.models.config import ModelConfig
from ftjax.objective import Init, Objective, Start
from ftjax.rl import endings, kl, layout, rewards, rollout
from ftjax.sampling import stops
from ftjax.train import epochs

ENDINGS = ("none", "penalty", "replace")
CONTROLLERS = ("fixed", "paper", "code")


def plan(c: Mapping[str, Any]) -> epochs.Plan | None:
    """Returns how an experience is gone through; None where the algorithm learns from data alone."""
    if "updates" not in c:
        return None
    u = c["updates"]
    return epochs.Plan(u["epochs"], u["minibatches"], u["most_approx_kl"] or float("inf"))


def build(
    c: Mapping[str, Any],
    aim: Objective,
    init: Init,
    config: ModelConfig,
    *,
    abstract_base: Any,
    prompts: list[prompt_data.Prompt],
    tok: tokenizer.Tokenizer,
    stop_ids: tuple[int, ...],
    mesh: jax.sharding.Mesh | None,
) -> Objective:
    """Returns the objective with its algorithm, all but weights; what does not fit together is a UserError."""
    _check(c, config, prompts)
    _check_rewards(c["rewards"])
    if c["rollout"]["stop"]:
        stops.finder(c["rollout"]["stop"], tok)  # raises where the tokenizer cannot write one
    run = rollout.Rollout(
        config=config,
        settings=_settings(c, stop_ids),
        prompts={one.number: one for one in prompts},
        tokenizer=tok,
        score=_functions(c["rewards"], prompts),
        judges=_judges(c, abstract_base, config),
        ending=_ending(c["rewards"]),
        place=functools.partial(meshes.place_whole_batch, mesh),
    )
    made = {"ppo": _ppo, "grpo": _grpo, "raft": _raft, "online_dpo": _online_dpo}[c["algorithm"]](c, init, config, run)
    if made.reference is None and not (c["adapter"]["path"] or c["adapter"]["name"] == "none"):
        made = made._replace(reference=lambda frozen: frozen.base)  # it is there, and free
    return aim._replace(algorithm=made, rollout=run)


def _check(c: Mapping[str, Any], config: ModelConfig, prompts: list[prompt_data.Prompt]) -> None:
    r, u, rows = c["rollout"], c["updates"], c["data"]["batch_size"]
    # Batches and minibatches are as large as the config says (27).
    if rows % (u["minibatches"] * c["microbatches"]):
        raise UserError(
            f"config.updates.minibatches {u['minibatches']} times config.microbatches {c['microbatches']} must divide "
            f"config.data.batch_size {rows}, the prompts of a step"
        )
    longest = max(prompts, key=lambda one: len(one.ids))
    if len(longest.ids) + r["max_new_tokens"] > config.context:
        raise UserError(
            f"{longest.where}: a prompt of {len(longest.ids)} tokens and config.rollout.max_new_tokens "
            f"{r['max_new_tokens']} exceed the context of the model, {config.context}; lower one of "
            f"config.data.max_length and config.rollout.max_new_tokens"
        )
    if c["adapter"]["dropout"] and c["algorithm"] != "raft":  # (19)
        raise UserError(
            f"config.adapter.dropout is {c['adapter']['dropout']}, but {c['algorithm']} compares two forward passes, "
            "which dropout would make noise of; set 0"
        )
    if c["algorithm"] != "ppo" and r["samples"] < 2:
        raise UserError(
            f"config.rollout.samples is {r['samples']}, but {c['algorithm']} compares completions of one prompt; set 2 "
            "or more, or take config.algorithm ppo, which has a value model"
        )
    if r["stop"] and r["fixed_length"]:
        raise UserError(
            f"config.rollout.stop {r['stop']} with config.rollout.fixed_length: completions that go on to their length "
            "are not read for texts; leave out one"
        )
    if r["stop_from"] and not r["fixed_length"]:
        raise UserError(
            f"config.rollout.stop_from is {r['stop_from']}, but a completion ends at its first stop token; set "
            "config.rollout.fixed_length=true, or stop_from 0"
        )


def _check_rewards(section: Mapping[str, Any]) -> None:
    if not section["names"] and not section["models"] and not section["check"]:
        raise UserError(
            "config.rewards is empty; name functions (--config.rewards.names=\"('numeric',)\"), runs of reward models "
            "(config.rewards.models), or a check (config.rewards.check=pkg.mod:fn)"
        )
    if section["overlong"] and section["overlong_buffer"] > section["overlong"]:
        raise UserError(
            f"config.rewards.overlong_buffer {section['overlong_buffer']} is more than config.rewards.overlong "
            f"{section['overlong']}, the tokens at whose end it is; lower it"
        )


def _settings(c: Mapping[str, Any], stop_ids: tuple[int, ...]) -> rollout.Settings:
    r = c["rollout"]
    own: dict[str, Any] = {"stop_ids": stop_ids, "stop_strings": tuple(r["stop"])}
    return rollout.Settings(**own, **{name: r[name] for name in rollout.Settings._fields if name not in own})


def _functions(
    section: Mapping[str, Any], prompts: list[prompt_data.Prompt]
) -> Callable[[Any], rewards.Scored] | None:  # fmt: skip
    """Returns the reward functions together; None without any."""
    hyper = {name: section[name] for name in section if name not in _OF_SECTION}
    terms = list(rewards.terms(section["names"], section["weights"], hyper)) if section["names"] else []
    if section["check"]:
        check = lookup.lookup("ftjax.evals", section["check"])
        terms = [*terms, rewards.Term(name=section["check"], function=_by_check(check), weight=section["check_weight"])]
    if not terms:
        return None
    rewards.check_columns(terms, {"whole_row", *(key for one in prompts for key in one.row)})
    scorer = rewards.Scorer(terms, timeout=section["timeout"], workers=section["workers"])
    return lambda samples: _scored_by_first(scorer, samples)


def _scored_by_first(scorer: Callable[[Any], rewards.Scored], samples: Any) -> rewards.Scored:
    """Returns what the first process's functions say: those that ask somebody else may not say it twice."""

    def told() -> list[Any]:
        found = scorer(samples)
        parts = {name: values.tolist() for name, values in found.parts.items()}
        return [found.scores.tolist(), found.valid.tolist(), parts, found.failures]

    if not hosts.several():
        return scorer(samples)
    scores, valid, parts, failures = hosts.of_first(told)
    return rewards.Scored(
        scores=np.array(scores, np.float32),
        valid=np.array(valid, bool),
        parts={name: np.array(values, np.float32) for name, values in parts.items()},
        failures=[rewards.Failure(*one) for one in failures],
    )


_OF_SECTION = (
    *("names", "weights", "models", "model_weights", "check", "check_weight", "timeout", "workers", "missing_end"),
    *("missing_end_value", "overlong", "overlong_buffer"),
)


def _by_check(check: Callable[[Mapping[str, Any], str], float]) -> Callable[..., list[float]]:
    """Returns a check of answers (config.eval.check) as a reward function."""

    def score(*, completions: list[str], whole_row: list[Mapping[str, Any]]) -> list[float]:
        return [check(row, text) for row, text in zip(whole_row, completions, strict=True)]

    return score


def _ending(section: Mapping[str, Any]) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Any]:
    """Returns what a completion without an end, or of too many tokens, costs."""
    rule, value = section["missing_end"], section["missing_end_value"]

    def cost(scores: np.ndarray, ended: np.ndarray, lengths: np.ndarray) -> Any:
        paid = jnp.asarray(scores, jnp.float32)
        if rule == "penalty":  # (7)
            paid = endings.penalty(paid, jnp.asarray(ended), value=value)
        if rule == "replace":
            paid = endings.replace(paid, jnp.asarray(ended), value=value)
        if section["overlong"]:
            limits = {"longest": section["overlong"], "buffer": section["overlong_buffer"]}
            paid += endings.soft_overlong(jnp.asarray(lengths, jnp.int32), **limits)
        return paid

    return cost


def _judges(c: Mapping[str, Any], abstract_base: Any, config: ModelConfig) -> list[rollout.Judge]:
    """Returns the reward models, each an adapter with a head on the run's own base."""
    section = c["rewards"]
    if not section["models"]:
        return []
    base, parts, weights = scoring.of_runs(section["models"], section["model_weights"] or None)
    _check_base(c, parts[0][0], base)
    made = []
    for model in scoring.models_on(abstract_base, config, parts, weights):
        program = jax.jit(functools.partial(score, config=config, mean=model.mean, std=model.std))
        made.append(rollout.Judge(Path(model.name).name, model.weight, functools.partial(program, model.adapters)))
    return made


def _check_base(c: Mapping[str, Any], name: str, base: inference.Made) -> None:
    """Raises where a run was on another base than this one, or on the same in other bits."""
    scoring.check_same_base(name, base.model, "this run", c["model"]["path"])
    if base.quant.format != c["quant"]["format"]:
        raise UserError(
            f"{name} was trained on a base in {base.quant.format}, this run has config.quant.format "
            f"{c['quant']['format']}; they share one base, so take the same"
        )


def score(
    adapters: Any, base: Any, rows: layout.Rows, *, config: ModelConfig, mean: float, std: float
) -> jax.Array:  # fmt: skip
    """Returns what a reward model says at the last token of every completion, [P, G]."""
    params = attach.attach(base, adapters)
    hidden_PGND = layout.hidden(params, rows, config)
    blocks = hidden_PGND.reshape(len(hidden_PGND), -1, hidden_PGND.shape[-1])
    return (heads.score(params, blocks, layout.ends(rows) - rows.head) - mean) / std


def _carrying(c: Mapping[str, Any]) -> on_policy.Carrying:
    s, r, reference = c["loss"], c["rollout"], c["reference"]["kind"]
    episodes = c["data"]["batch_size"] * r["samples"]
    controller: on_policy.Controller | None = None
    kind = s["kl_controller"]
    if kind == "paper":
        controller = functools.partial(kl.adapt_by_paper, target=s["kl_target"], gain=s["kl_gain"])
    if kind == "code":
        controller = functools.partial(
            kl.adapt_by_code, target=s["kl_target"], horizon=s["kl_horizon"], episodes=episodes
        )
    if reference not in ("base", "start", "none"):
        known = ["base", "start", "none"]
        raise UserError(f"config.reference.kind is {reference!r}.{lookup.suggestion(reference, known)}")
    if reference == "none" and (s["kl_coefficient"] or controller):
        raise UserError(
            f"config.reference.kind is none, but config.loss.kl_coefficient is {s['kl_coefficient']}; set "
            "config.reference.kind=base (or start), or config.loss.kl_coefficient=0 and kl_controller=fixed"
        )
    if reference == "base" and c["adapter"]["name"] == "none":
        raise UserError(
            "config.reference.kind base with config.adapter.name none: full fine-tuning changes the base; set "
            "config.reference.kind=start (a copy), or none with config.loss.kl_coefficient=0"
        )
    if reference == "base" and c["adapter"]["path"]:
        raise UserError(
            "config.reference.kind base with config.adapter.path: training would begin away from its reference; set "
            "config.reference.kind=start, which is the base with that adapter"
        )
    return on_policy.Carrying(
        coefficient=s["kl_coefficient"],
        controller=controller,
        sync_every=r["sync_every"],
        normalise=s["normalise_scores"],
        reference=reference,
    )


def _most_kl(c: Mapping[str, Any]) -> float:
    return float(c["stop"]["kl"] or float("inf"))


def _ppo(c: Mapping[str, Any], init: Init, config: ModelConfig, run: rollout.Rollout) -> Algorithm:
    carrying = _carrying(c)
    if carrying.reference == "none" or c["adapter"]["name"] == "none":
        raise UserError(
            "config.algorithm ppo has a KL penalty to a reference and a value beside the policy on one base: take "
            "config.reference.kind base or start, and an adapter"
        )
    if c["loss"]["gamma"] > 1:
        raise UserError(f"config.loss.gamma is {c['loss']['gamma']:g}; the discount of PPO must be between 0 and 1")
    text, share = c["data"]["text"], c["loss"]["text_coefficient"]
    if bool(text) != bool(share):
        raise UserError(
            f"config.data.text is {text!r} and config.loss.text_coefficient {share:g}: ordinary text in the loss needs "
            "both; set the other, or leave out this one"
        )
    settings = ppo.Settings(**{name: c["loss"][name] for name in ppo.Settings._fields})
    return ppo.make(
        init, config, run=run, settings=settings, carrying=carrying, shared=c["value"]["shared"], most_kl=_most_kl(c)
    )  # fmt: skip


def _grpo(c: Mapping[str, Any], init: Init, config: ModelConfig, run: rollout.Rollout) -> Algorithm:
    s = c["loss"]
    for key, known in (("advantage", grpo.ADVANTAGES), ("loss", grpo.LOSSES), ("normaliser", grpo.NORMALISERS)):
        if s[key] not in known:
            raise UserError(f"config.loss.{key} is {s[key]!r}.{lookup.suggestion(s[key], list(known))}")
    settings = grpo.Settings(**{name: s[name] for name in grpo.Settings._fields})
    return grpo.make(
        init, config, run=run, settings=settings, carrying=_carrying(c), most_kl=_most_kl(c),
        updates=c["updates"]["epochs"] * c["updates"]["minibatches"],
    )  # fmt: skip


def _raft(c: Mapping[str, Any], init: Init, config: ModelConfig, run: rollout.Rollout) -> Algorithm:
    return raft.make(init, config, run=run, carrying=_carrying(c), most_kl=_most_kl(c))


def _online_dpo(c: Mapping[str, Any], init: Init, config: ModelConfig, run: rollout.Rollout) -> Algorithm:
    name, s = c["loss"]["name"], c["loss"]
    pairs = objective.pair_losses(preference)
    known = {word: found for word, found in pairs.items() if objective.needs_of(found) == {"policy", "reference"}}
    if name not in known:
        raise UserError(f"config.loss.name is {name!r}.{lookup.suggestion(name, list(known))}")
    carrying = _carrying(c)
    if carrying.reference == "none":
        raise UserError("config.reference.kind is none, but online DPO is held against a reference; set base, or start")
    pair_loss = objective.bound(known[name], s)
    return online_dpo.make(
        init, config, run=run, carrying=carrying, pair_loss=pair_loss, beta=s["beta"], most_kl=_most_kl(c)
    )


def value_start(c: Mapping[str, Any], abstract_base: Any, config: ModelConfig) -> Any:
    """Returns the adapters and head that the value model begins as, on the host; None for new ones (20).

    Those of a PPO run, or of a reward model's, whose head is divided by the standard deviation of its scores: it then
    says what they are before their mean is taken off.
    """
    path = c["value"]["path"]
    if not path:
        return None
    if c["value"]["shared"]:
        raise UserError(
            f"config.value.path {path} with config.value.shared: a value on the policy's own trunk has no adapters to "
            "begin as others; leave out one"
        )
    base, parts, _ = scoring.of_runs((path,), None)
    _check_base(c, path, base)
    values = Path(path).expanduser() / "value"
    folder = values if values.is_dir() else parts[0][1]
    adapters = peft.load(folder, abstract_base, config)
    if adapters.score is None:
        raise UserError(
            f"config.value.path {path} is the run of no reward model and of no PPO: it has no head (task_type SEQ_CLS)"
        )
    _, std = scoring.normalisation(folder)
    return adapters.replace(score=jnp.asarray(adapters.score) / std)


def going_on(made: Algorithm, given: Start) -> Algorithm:
    """Returns the algorithm that begins with given adapters, where there are some; a head that they lack is new."""

    def begun(fresh: Any, known: Any) -> Any:
        if known is None:
            return fresh
        whole = fresh if known.score is not None else fresh.replace(score=None)
        found = jax.tree.unflatten(jax.tree.structure(whole), jax.tree.leaves(known))
        return found if found.score is not None else found.replace(score=fresh.score)

    def init(key: jax.Array, base: Any) -> Any:
        fresh = made.init(key, base)
        if not isinstance(fresh, ppo.Trainable):
            return begun(fresh, given.adapters)
        # The value's adapters may be of another rank than the policy's: they are those of a reward model.
        value = given.value if given.value is not None else fresh.value
        return fresh.replace(policy=begun(fresh.policy, given.adapters), value=value)

    return made._replace(init=init)
