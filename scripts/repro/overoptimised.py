"""What E9 measures: true reward and proxy along the exact optima of reward models of few and of many pairs.

Nothing is sampled but the pairs: pi* ~ ref exp(proxy / beta) and the best of n are sums over all responses.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.rl import groups
from scripts.repro import enumerable, policies
from scripts.repro.enumerable import Space

BISECTIONS = 60


def measure(seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the curves of a reward model for each number of pairs, at one seed."""
    made, rng = enumerable.space(**settings["space"]), np.random.default_rng(seed)
    reference = shy(made, seed, settings)
    gold = rewards(made, reference, rng, settings["gold"])
    arms = {}
    for number, count in enumerate(settings["counts"]):
        key = jax.random.fold_in(jax.random.key(seed), 1 + number)
        proxy = proxy_of(made, reference, gold, rng, key, count, settings)
        arms[str(count)] = {
            "tilts": [point(logps, reference, gold, proxy) for logps in tilts(reference, proxy, settings["betas"])],
            "best": [best(n, reference, gold, proxy) for n in settings["best_of"]],
        }
    rare = float(np.exp(reference)[zeros(made) > settings["gold"]["free"]].sum())
    return {"arms": arms, "rare": rare, "highest": float(gold.max())}


def zeros(made: Space) -> np.ndarray:
    """Returns how often token 0 is in every response."""
    return (made.responses == 0).sum(axis=1)


def shy(made: Space, seed: int, settings: Mapping[str, Any]) -> np.ndarray:
    """Returns log-probabilities of all responses of a reference that rarely gives token 0 more than `free` times."""
    at, asked, model = policies.places(made), settings["gold"], settings["model"]
    params = policies.policy_init(jax.random.key(seed), made, model["hidden"], head=model["reference_head"])
    logits, many = np.asarray(policies.logits(params, at), np.float64), zeros(made) > asked["free"]
    first = np.arange(made.vocab) == 0
    lowered = lambda by: enumerable.response_logps(made, logits - by * first)
    low, high = -20.0, 20.0  # nats off token 0; the chance falls with them
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if np.exp(lowered(middle))[many].sum() < asked["rare"] else (middle, high)
    return lowered(high)


def rewards(made: Space, reference: np.ndarray, rng: np.random.Generator, asked: Mapping[str, Any]) -> np.ndarray:
    """Returns the true reward of every response, mean 0 and standard deviation 1 under the reference.

    A small worth of each token at each place; 1 for each token 0 up to `free`, and `slope` less for each more: what a
    reward model of few pairs has rarely seen.
    """
    worth = asked["unary"] * rng.standard_normal((made.length, made.vocab))
    found, free = zeros(made), asked["free"]
    counted = np.minimum(found, free) - asked["slope"] * np.maximum(found - free, 0)
    return enumerable.standardise(worth[np.arange(made.length), made.responses].sum(axis=1) + counted, reference)


def proxy_of(
    made: Space,
    reference: np.ndarray,
    gold: np.ndarray,
    rng: np.random.Generator,
    key: jax.Array,
    count: int,
    settings: Mapping[str, Any],
) -> np.ndarray:
    """Returns the scores of all responses by a reward model of so many pairs, mean 0 and deviation 1.

    The better one of a pair is always the chosen one (hard labels).
    """
    asked = settings["reward_model"]
    pairs = enumerable.draw_pairs(reference, gold, rng, count=count, sharpness=1e9)
    batches = policies.batches_of(pairs, rng, steps=asked["steps"], size=min(count, asked["batch"]))
    start = policies.reward_model_init(key, made, settings["model"]["hidden"])
    how = {name: asked[name] for name in ("rate", "clip_norm", "weight_decay")}
    scores, _ = policies.reward_model(start, batches, jnp.asarray(made.endings), **how)
    return enumerable.standardise(np.asarray(scores, np.float64), reference)


def tilts(reference: np.ndarray, proxy: np.ndarray, asked: Mapping[str, Any]) -> list[np.ndarray]:
    """Returns the exact optima of proxy less beta KL, from large betas to small ones."""
    betas = np.geomspace(asked["first"], asked["last"], asked["count"])
    return [enumerable.tilt(reference, proxy, beta) for beta in betas]


def point(logps: np.ndarray, reference: np.ndarray, gold: np.ndarray, proxy: np.ndarray) -> dict[str, float]:
    """Returns KL, true reward and proxy of a policy."""
    return {
        "kl": nats(logps, reference),
        "gold": enumerable.mean(logps, gold),
        "proxy": enumerable.mean(logps, proxy),
    }


def best(n: int, reference: np.ndarray, gold: np.ndarray, proxy: np.ndarray) -> dict[str, float]:
    """Returns the same of the best of n by the proxy, and what the formula says of its KL."""
    found = point(enumerable.best_of(reference, proxy, n), reference, gold, proxy)
    return {"n": n, "formula": groups.kl_of_best(n)} | found


def nats(logps: np.ndarray, reference: np.ndarray) -> float:
    """Returns KL(pi || ref) where a response may have the probability 0."""
    alive = logps > -np.inf
    return enumerable.kl(logps[alive], reference[alive])
