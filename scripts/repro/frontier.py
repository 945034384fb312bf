"""What E7 and E8 measure on S2, seed by seed: exact KL and reward of every policy, accuracy and calibration of judges.

One JSON file a seed is kept with the settings that made it; another setting measures it again.
"""

from collections.abc import Callable, Mapping
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


def all_seeds(
    folder: Path, settings: Mapping[str, Any], measure: Callable[[int, Mapping[str, Any]], dict], say: Callable
) -> list[dict[str, Any]]:
    """Returns what `measure` finds at each seed, measuring what the folder does not have."""
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
    """Returns the points and curves of E7 and the judges of E8 of one seed: an arm for each number of pairs a step."""
    world = make_world(seed, settings)
    trained = {size: train_on_pairs(world, seed, settings, size) for size in settings["batches"]}
    proxies = {size: scores["RM"] for size, scores in trained.items()}
    reinforced_ones, ratio_error = reinforced(world, seed, settings, proxies)
    arms = {}
    for size, judges in trained.items():
        made = [("DPO", beta, world.reference + judges[f"DPO {beta:g}"] / beta) for beta in settings["dpo"]["betas"]]
        made += [entry[:3] for entry in reinforced_ones if entry[3] in (size, None)]
        own = pairs_of_dpo(world, seed, settings, judges)
        arms[str(size)] = {
            "points": [point(world, *entry, proxies[size]) for entry in made],
            "judges": {name: judge(world, scores, own, settings) for name, scores in judges.items()},
            "shifted_bayes": enumerable.bayes_accuracy(own, world.gold, settings["pairs"]["sharpness"]),
            "proxy": curve(world, proxies[size]),
        }
    bayes = enumerable.bayes_accuracy(world.heldout, world.gold, settings["pairs"]["sharpness"])
    return {"bayes": bayes, "ratio_error": ratio_error, "frontier": curve(world, world.gold), "arms": arms}


def make_world(seed: int, settings: Mapping[str, Any]) -> World:
    """Returns the reference policy, the true reward and the pairs of a seed."""
    made = enumerable.space(**settings["space"])
    rng, at = np.random.default_rng(seed), policies.places(made)
    model = settings["model"]
    start = policies.policy_init(jax.random.key(seed), made, model["hidden"], head=model["reference_head"])
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
    key = jax.random.fold_in(jax.random.key(seed), 1)
    start = policies.reward_model_init(key, world.space, settings["model"]["hidden"])
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


def of_ppo(seed: int, settings: Mapping[str, Any]) -> tuple[policies.Settings, jax.Array]:
    """Returns the numbers of PPO, and the rows of each minibatch, [iterations, updates, rows]."""
    asked = dict(settings["ppo"])
    del asked["betas"]
    iterations = asked.pop("iterations")
    ppo = policies.Settings(**asked)
    return ppo, jnp.asarray(policies.orders(np.random.default_rng((seed, 0)), iterations, ppo))


def reinforced(
    world: World, seed: int, settings: Mapping[str, Any], proxies: Mapping[int, np.ndarray]
) -> tuple[list[tuple[str, float, np.ndarray, int | None]], float]:
    """Returns (method, beta, log pi, arm) of each policy of PPO, and how far a first ratio after a rollout was from 1.

    The arm is the reward model's, None for the true reward. The scores of a reward model get unit sd.
    """
    betas, adaptive, (ppo, orders) = settings["ppo"]["betas"], settings["adaptive"], of_ppo(seed, settings)
    sizes = (world.space.features.shape[1], *settings["model"]["hidden"], 1)
    value = policies.init(jax.random.fold_in(jax.random.key(seed), 2), sizes, head=0.0)
    scored = {arm: enumerable.standardise(scores, world.reference) for arm, scores in proxies.items()}
    target, start = adaptive["target"], adaptive["start"]
    paper = functools.partial(kl.adapt_by_paper, target=target, gain=adaptive["gain"])
    code = functools.partial(kl.adapt_by_code, target=target, horizon=adaptive["horizon"], episodes=ppo.batch)
    groups: list[tuple[policies.Adapt, list[tuple[str, float, np.ndarray, int | None]]]] = [
        (policies.fixed, [("PPO-GT", beta, world.gold, None) for beta in betas]),
        (policies.fixed, [("PPO-RM", beta, scores, arm) for arm, scores in scored.items() for beta in betas]),
        (paper, [("adaptive, paper", start, scores, arm) for arm, scores in scored.items()]),
        (code, [("adaptive, code", start, scores, arm) for arm, scores in scored.items()]),
    ]
    found, worst = [], 0.0
    for number, (adapt, runs) in enumerate(groups):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3 + number), (len(runs), len(orders)))
        scores = jnp.asarray(np.stack([run[2] for run in runs]), jnp.float32)
        coefficients = jnp.array([run[1] for run in runs], jnp.float32)
        params, trace = policies.ppo(
            world.start, value, scores, coefficients, keys, orders, world.at, settings=ppo, adapt=adapt
        )
        worst = max(worst, float(jnp.max(trace["ratio_error"])))
        each = [jax.tree.map(lambda x, i=i: x[i], params) for i in range(len(runs))]
        for (method, beta, _, arm), one in zip(runs, each, strict=True):
            found.append((method, beta, exact(world.space, one, world.at), arm))
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


def pairs_of_dpo(world: World, seed: int, settings: Mapping[str, Any], trained: Mapping[str, np.ndarray]) -> Pairs:
    """Returns as many pairs as are held out, drawn from the policy that DPO made: not what any judge was trained on."""
    beta, asked = settings["shifted"], settings["pairs"]
    logps = world.reference + trained[f"DPO {beta:g}"] / beta
    rng = np.random.default_rng((seed, 1))
    return enumerable.draw_pairs(logps, world.gold, rng, count=asked["heldout"], sharpness=asked["sharpness"])


def judge(world: World, scores: np.ndarray, own: Pairs, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns accuracy and calibration of scores on the held-out pairs; the temperature is fitted on other pairs.

    Accuracy on DPO's own pairs besides.
    """
    margins = lambda pairs: scores[pairs.chosen] - scores[pairs.rejected]
    right = lambda found: float(np.mean((np.sign(found) + 1) / 2))
    heldout, warmth = margins(world.heldout), calibration.temperature(margins(world.calibrate))
    before, after = (
        calibration.reliability(m, bins=settings["calibration"]["bins"]) for m in (heldout, heldout / warmth)
    )
    return {
        "accuracy": right(heldout),
        "shifted": right(margins(own)),
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
