"""PPO's kin in the world of E7: each method on the true reward, against the exact frontier.

A method is advantages of groups, a loss of tokens and a place for the KL penalty, as it was published.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import statistics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.losses import normalise, reduce
from ftjax.losses import policy as policy_losses
from ftjax.rl import groups, kl
from scripts.repro import enumerable, frontier, policies
from scripts.repro.check import Check, table
from scripts.repro.enumerable import Space
from scripts.repro.frontier_rules import SLACK, share
from scripts.repro.ranks import spread

Arrays = dict[str, jax.Array]  # of a minibatch, [B, T]
Seeds = Sequence[Mapping[str, Any]]

RESTS = "exact: where Dr. GRPO's gradient is 0"
BISECTIONS = 80


class Method(NamedTuple):
    """How a method makes a step out of completions and scores."""

    advantages: Callable[[jax.Array, jax.Array], jax.Array]  # (scores, valid) [P, G]
    loss: Callable[[Arrays], tuple[jax.Array, Any]]
    normalise: Callable[..., normalise.Normalised]
    in_score: bool  # whether the KL penalty is k1 in the score, or k3 in the loss


def surrogate(low: float, high: float) -> Callable[[Arrays], tuple[jax.Array, Any]]:
    """Returns the clipped surrogate of GRPO with these clips."""
    return lambda x: policy_losses.clipped_surrogate(**x, clip_low=low, clip_high=high)


def of_sequences(x: Arrays) -> tuple[jax.Array, Any]:
    """Returns GSPO's loss; a ratio's mean over six tokens moves about a sixth as far as one token's."""
    x = x | {"advantages": x["advantages"][:, 0], "mask": jnp.ones_like(x["logps"])}
    return policy_losses.gspo(**x, clip_low=0.03, clip_high=0.04)


def whitened(scores: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns REINFORCE++'s advantages of completions that are all of one length."""
    return groups.reinforce_plus_plus(scores, valid, jnp.ones_like(scores), ddof=0, eps=1e-8)


def by_std(scores: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns GRPO's advantages."""
    return groups.grpo(scores, valid, eps=1e-4)


def cispo(x: Arrays) -> tuple[jax.Array, Any]:
    """Returns CISPO's loss without a lower bound."""
    return policy_losses.cispo(**x, clip_low=1.0, clip_high=0.28)


METHODS = {
    "GRPO": Method(by_std, surrogate(0.2, 0.2), normalise.per_sequence, in_score=False),
    "Dr. GRPO": Method(groups.centred, surrogate(0.2, 0.2), normalise.per_token, in_score=False),
    "DAPO's clip and mean": Method(by_std, surrogate(0.2, 0.28), normalise.per_token, in_score=True),
    "RLOO": Method(groups.rloo, surrogate(0.2, 0.2), normalise.per_token, in_score=True),
    "REINFORCE++, baseline": Method(whitened, surrogate(0.2, 0.2), normalise.per_token, in_score=True),
    "GSPO": Method(by_std, of_sequences, normalise.per_sequence, in_score=True),
    "CISPO": Method(by_std, cispo, normalise.per_token, in_score=True),
}


def measure(seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns KL, true reward and the frontier at this KL of every method, at one seed of E7."""
    world, (ppo, orders) = frontier.make_world(seed, settings), frontier.of_ppo(seed, settings)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 9), len(orders))
    gold, points = jnp.asarray(world.gold, jnp.float32), []
    for name in METHODS:
        made, error = train(world.start, gold, keys, orders, world.at, name, ppo, settings["group"], settings["beta"])
        logps = frontier.exact(world.space, made, world.at)
        points.append(frontier.point(world, name, settings["beta"], logps, world.gold) | {"ratio_error": float(error)})
    # Dr. GRPO's advantages are 1 - 1/k of the unbiased ones, which is as if beta were so much larger.
    beta = settings["beta"] / (1 - 1 / settings["group"])
    rests = fixed_point(world.space, np.asarray(policies.logits(world.start, world.at)), world.gold, beta)
    points.append(frontier.point(world, RESTS, settings["beta"], rests, world.gold) | {"ratio_error": 0.0})
    return {"points": points}


def fixed_point(made: Space, reference: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    """Returns log pi of every response where the gradient of reward less beta k3 in the loss, on samples of pi, is 0.

    `reference` are logits after each prefix [P, V]. A token's k3 gives the gradient of KL(ref || pi) after its prefix,
    and its effect on the penalties of later tokens gives none. So, from the last token backwards, pi(v) = beta ref(v) /
    (c - Q(v)), with Q the reward to come and c such that pi sums to 1.
    """
    chances, to_come = np.exp(enumerable.log_softmax(reference)), rewards
    logps = np.zeros_like(chances)
    for t in reversed(range(made.length)):
        rows, reward = np.unique(made.prefixes[:, t]), to_come.reshape(-1, made.vocab)
        low, high = reward.max(axis=1), reward.max(axis=1) + beta  # at c = max Q + beta the sum is at most 1
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            over = (beta * chances[rows] / (middle[:, None] - reward)).sum(axis=1) > 1
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        made_of = beta * chances[rows] / (high[:, None] - reward)
        logps[rows] = np.log(made_of / made_of.sum(axis=1, keepdims=True))
        to_come = (np.exp(logps[rows]) * reward).sum(axis=1)
    return logps[made.prefixes, made.responses].sum(axis=1)


@functools.partial(jax.jit, static_argnames=("name", "settings", "size", "beta"))
def train(
    start: policies.Params,
    rewards: jax.Array,
    keys: jax.Array,
    orders: jax.Array,
    at: policies.Places,
    name: str,
    settings: policies.Settings,
    size: int,
    beta: float,
) -> tuple[policies.Params, jax.Array]:
    """Returns the policy after a method, and how far a ratio before the first update of a rollout was from 1."""
    method, length = METHODS[name], at.responses.shape[1]
    reference = policies.token_logps(start, at)
    tx = policies.optimizer(settings.rate, orders.shape[0] * orders.shape[1], settings.clip_norm)

    def loss(params: policies.Params, part: Arrays) -> tuple[jax.Array, jax.Array]:
        logps = policies.token_logps(params, at)[part["prefixes"], part["tokens"]]
        given = {name: part[name] for name in ("old_logps", "advantages")}
        values, _ = method.loss({"logps": logps, **given})
        if not method.in_score:
            before = reference[part["prefixes"], part["tokens"]]
            values = values + policy_losses.kl_penalty(logps=logps, reference=before, beta=beta)[0]
        found = method.normalise(values, jnp.ones_like(logps), jnp.ones(len(logps)))
        mean = reduce.masked_sum(found.losses, found.weights) / jnp.sum(found.weights)
        return mean, jnp.max(jnp.abs(jnp.exp(logps - part["old_logps"]) - 1))

    def iteration(state: Any, given: Any) -> tuple[Any, jax.Array]:
        key, order = given
        prefixes, tokens, numbers = policies.sample(key, policies.token_logps(state[0], at), settings.batch, length)
        logps = policies.token_logps(state[0], at)[prefixes, tokens]
        nats = jnp.sum(kl.k1(logps, reference[prefixes, tokens]), axis=1)
        scores = (rewards[numbers] - (beta * nats if method.in_score else 0.0)).reshape(-1, size)
        each = jnp.broadcast_to(method.advantages(scores, jnp.ones_like(scores)).reshape(-1, 1), tokens.shape)
        made = {"prefixes": prefixes, "tokens": tokens, "old_logps": logps, "advantages": each}

        def update(state: Any, rows: jax.Array) -> tuple[Any, jax.Array]:
            return policies.updated(loss, tx, state, jax.tree.map(lambda x: x[rows], made))

        state, errors = jax.lax.scan(update, state, order)
        return state, errors[0]

    (params, _), errors = jax.lax.scan(iteration, (start, tx.init(start)), (keys, orders))
    return params, jnp.max(errors)


def report(found: Seeds, _: Mapping[str, Any], __: Any) -> str:
    """Returns the table of the methods, and the checks: E7's of PPO on the true reward."""
    of = {name: [p for seed in found for p in seed["points"] if p["method"] == name] for name in (*METHODS, RESTS)}
    lines = ["| method | KL | true reward | of the frontier at its KL |", "|---" * 4 + "|"]
    shares = {name: [share(p) for p in each] for name, each in of.items()}
    for name, each in of.items():
        cells = [spread([p["kl"] for p in each], 2), spread([p["gold"] for p in each], 3)]
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.fmean(shares[name]):.1%} |")
    above = max(p["gold"] - p["frontier"] for each in of.values() for p in each)
    least = min(statistics.fmean(shares[name]) for name in METHODS)
    worst = max(p["ratio_error"] for each in of.values() for p in each)
    checks = [
        Check("any method, less the frontier at its KL", "at most +.01", f"{above:+.4f}", above <= SLACK),
        Check("of the frontier at its KL, the least of the methods", "at least .90", f"{least:.3f}", least >= 0.9),
        Check("ratio before the first update less 1", "below 1e-5", f"{worst:.1e}", worst < 1e-5),
    ]
    return "\n".join(lines) + f"\n\n{table(checks)}"
