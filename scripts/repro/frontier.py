"""What E7 and E8 measure on S2, seed by seed: exact KL and reward of every policy, accuracy and calibration of judges.

One JSON file a seed is kept with the settings that made it; another setting measures it again.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import json
from pathlib import Path
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.evals import calibration
from ftjax.rl import kl
from ftjax.runs import atomic
from scripts.repro import enumerable, policies
from scripts.repro.enumerable import Pairs, Space

GRID = 60  # points of a curve that is drawn


class World(NamedTuple):
    """What a seed fixes before anything is trained."""

    space: Space
    at: policies.Places
    start: policies.Params  # of the reference policy
    reference: np.ndarray  # its log-probabilities of all responses
    gold: np.ndarray  # true rewards of all responses
    train: Pairs
    calibrate: Pairs
    heldout: Pairs


def all_seeds(folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Returns what was measured at each seed, measuring what the folder does not have."""
    folder.mkdir(parents=True, exist_ok=True)
    fixed = json.loads(json.dumps({key: value for key, value in settings.items() if key != "seeds"}))
    found = []
    for seed in settings["seeds"]:
        kept = folder / f"seed={seed}.json"
        old = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
        if old.get("settings") != fixed:
            began = time.perf_counter()
            old = measure(seed, settings) | {"settings": fixed}
            old["seconds"] = time.perf_counter() - began
            say(f"seed {seed}: {old['seconds']:.0f} s")
            atomic.write_json(kept, old)
        found.append(old)
    return found


def measure(seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the points of E7, the judges of E8, and the curves that are drawn, of one seed."""
    world = make_world(seed, settings)
    points, judges, proxies = [], [], []
    for size in settings["batches"]:
        trained = train_on_pairs(world, seed, settings, size)
        proxies.append(trained["RM"])
        judges += [judge(world, name, size, scores, settings) for name, scores in trained.items()]
        if size != settings["batches"][0]:
            continue
        for name, scores in trained.items():
            if name != "RM":
                beta = float(name.removeprefix("DPO "))
                points.append(point(world, "DPO", beta, world.reference + scores / beta, proxies[0]))
    on_rewards, ratio_error = reinforced(world, seed, settings, proxies[0])
    points += [point(world, *entry, proxies[0]) for entry in on_rewards]
    return {
        "bayes": enumerable.bayes_accuracy(world.heldout, world.gold, settings["pairs"]["sharpness"]),
        "points": points,
        "judges": judges,
        "ratio_error": ratio_error,
        "curves": {name: curve(world, scores) for name, scores in (("frontier", world.gold), ("proxy", proxies[0]))},
    }


def make_world(seed: int, settings: Mapping[str, Any]) -> World:
    """Returns the reference policy, the true reward and the pairs of a seed."""
    made = enumerable.space(**settings["space"])
    rng, at = np.random.default_rng(seed), policies.places(made)
    sizes = (made.features.shape[1], *settings["model"]["hidden"], made.vocab)
    start = policies.init(jax.random.key(seed), sizes, head=settings["model"]["reference_head"])
    reference = exact(made, start, at)
    gold = enumerable.gold_rewards(made, reference, rng, **settings["gold"])
    asked = settings["pairs"]
    draw = lambda count: enumerable.draw_pairs(reference, gold, rng, count=count, sharpness=asked["sharpness"])
    counts = asked["count"], asked["heldout"], asked["heldout"]
    return World(made, at, start, reference, gold, *(draw(count) for count in counts))


def exact(made: Space, params: policies.Params, at: policies.Places) -> np.ndarray:
    """Returns log pi of every response, in float64 from the float32 logits."""
    return enumerable.response_logps(made, np.asarray(policies.logits(params, at)))


def train_on_pairs(world: World, seed: int, settings: Mapping[str, Any], size: int) -> dict[str, np.ndarray]:
    """Returns the scores of all responses by the reward model "RM", unit sd, and the implicit ones, "DPO <beta>"."""
    asked, rng = settings["training"], np.random.default_rng((seed, size))
    batches = policies.batches_of(world.train, rng, steps=asked["steps"], size=size)
    how = {"rate": asked["rate"], "clip_norm": asked["clip_norm"]}
    sizes = (world.space.endings.shape[1], *settings["model"]["hidden"], 1)
    # The head of a reward model is N(0, 1 / sqrt(d + 1)), as in lm-human-preferences.
    head = np.sqrt(sizes[-2]) / np.sqrt(sizes[-2] + 1)
    start = policies.init(jax.random.fold_in(jax.random.key(seed), 1), sizes, head=head)
    scores, _ = policies.reward_model(
        start, batches, jnp.asarray(world.space.endings), **how, **settings["reward_model"]
    )
    # Scores keep their own size for the judges (it is their confidence); PPO gets them with unit sd.
    found = {"RM": np.asarray(scores, np.float64)}
    for beta in settings["dpo"]["betas"]:
        smoothing = settings["dpo"]["label_smoothing"]
        params, _ = policies.dpo(world.start, batches, world.at, beta=beta, label_smoothing=smoothing, **how)
        logps = exact(world.space, params, world.at)
        found[f"DPO {beta:g}"] = enumerable.implicit_rewards(logps, world.reference, beta)
    return found


def reinforced(
    world: World, seed: int, settings: Mapping[str, Any], proxy: np.ndarray
) -> tuple[list[tuple[str, float, np.ndarray]], float]:
    """Returns (method, beta, log pi) of each policy of PPO, and how far its first ratio after a rollout was from 1."""
    asked, adaptive = dict(settings["ppo"]), settings["adaptive"]
    betas, iterations = asked.pop("betas"), asked.pop("iterations")
    ppo = policies.Settings(**asked)
    orders = jnp.asarray(policies.orders(np.random.default_rng((seed, 0)), iterations, ppo))
    sizes = (world.space.features.shape[1], *settings["model"]["hidden"], 1)
    value = policies.init(jax.random.fold_in(jax.random.key(seed), 2), sizes, head=0.0)
    proxy = enumerable.standardise(proxy, world.reference)
    tilted = {"PPO-GT": world.gold, "PPO-RM": proxy}
    fixed = [(name, beta, scores) for name, scores in tilted.items() for beta in betas]
    paper = functools.partial(kl.adapt_by_paper, target=adaptive["target"], gain=adaptive["gain"])
    code = functools.partial(
        kl.adapt_by_code, target=adaptive["target"], horizon=adaptive["horizon"], episodes=ppo.batch
    )
    found, worst = [], 0.0
    for number, (adapt, runs) in enumerate(
        (
            (policies.fixed, fixed),
            (paper, [("adaptive, paper", adaptive["start"], proxy)]),
            (code, [("adaptive, code", adaptive["start"], proxy)]),
        )
    ):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3 + number), (len(runs), iterations))
        scores = jnp.asarray(np.stack([run[2] for run in runs]), jnp.float32)
        coefficients = jnp.array([run[1] for run in runs], jnp.float32)
        params, trace = policies.ppo(
            world.start, value, scores, coefficients, keys, orders, world.at, settings=ppo, adapt=adapt
        )
        worst = max(worst, float(jnp.max(trace["ratio_error"])))
        each = [jax.tree.map(lambda x, i=i: x[i], params) for i in range(len(runs))]
        found += [(run[0], run[1], exact(world.space, one, world.at)) for run, one in zip(runs, each, strict=True)]
    return found, worst


def point(world: World, method: str, beta: float, logps: np.ndarray, proxy: np.ndarray) -> dict[str, Any]:
    """Returns KL and true reward of a policy, and those of the frontier and of the proxy's tilt at this KL."""
    nats = enumerable.kl(logps, world.reference)
    by_proxy = enumerable.mean(enumerable.tilt_at(world.reference, proxy, nats), world.gold)
    return {
        "method": method,
        "beta": beta,
        "kl": nats,
        "gold": enumerable.mean(logps, world.gold),
        "frontier": enumerable.frontier(world.reference, world.gold, nats),
        "proxy": by_proxy,
    }


def judge(world: World, name: str, size: int, scores: np.ndarray, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns accuracy and calibration of scores on the held-out pairs; the temperature is fitted on other pairs."""
    margins = lambda pairs: scores[pairs.chosen] - scores[pairs.rejected]
    heldout, warmth = margins(world.heldout), calibration.temperature(margins(world.calibrate))
    before, after = (
        calibration.reliability(m, bins=settings["calibration"]["bins"]) for m in (heldout, heldout / warmth)
    )
    return {
        "name": name,
        "size": size,
        "accuracy": float(np.mean((np.sign(heldout) + 1) / 2)),
        "train_accuracy": float(np.mean(margins(world.train) > 0)),
        "temperature": warmth,
        "ece": calibration.expected_error(before),
        "ece_fitted": calibration.expected_error(after),
        "bins": [list(b) for b in before],
        "bins_fitted": [list(b) for b in after],
    }


def curve(world: World, scores: np.ndarray) -> list[list[float]]:
    """Returns (KL, true reward) along the tilts of the scores, from the reference outwards."""
    spread = enumerable.standardise(scores, world.reference)
    tilts = [enumerable.tilt(world.reference, spread, beta) for beta in np.geomspace(30, 0.02, GRID)]
    return [[enumerable.kl(logps, world.reference), enumerable.mean(logps, world.gold)] for logps in tilts]


def of(found: Sequence[Mapping[str, Any]], key: str, **wanted: Any) -> list[list[dict[str, Any]]]:
    """Returns the points or judges of each seed that have these values."""
    match = lambda entry: all(entry[name] == value for name, value in wanted.items())
    return [[entry for entry in seed[key] if match(entry)] for seed in found]
