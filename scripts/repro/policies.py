"""What E7 and E8 train on S2: a policy by DPO and by PPO, a reward model, each loop one compiled scan.

The losses, advantages and controllers are those of ftjax; here is only what runs them on an MLP over prefixes.
"""

from collections.abc import Callable
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ftjax.losses import policy as policy_losses
from ftjax.losses import preference, reward
from ftjax.rl import advantages, kl
from scripts.repro.enumerable import Pairs, Space

Params = list[tuple[jax.Array, jax.Array]]
Adapt = Callable[[jax.Array, jax.Array], jax.Array]  # (coefficient, KL of a batch) -> coefficient


class Places(NamedTuple):
    """The arrays of a space that a program reads."""

    features: jax.Array  # [P, T * V]
    prefixes: jax.Array  # [N, T]
    responses: jax.Array  # [N, T]


def places(made: Space) -> Places:
    """Returns the arrays of a space on the device."""
    return Places(jnp.asarray(made.features), jnp.asarray(made.prefixes), jnp.asarray(made.responses))


def init(key: jax.Array, sizes: tuple[int, ...], *, head: float) -> Params:
    """Returns the weights of an MLP, N(0, 1 / in), those of the last layer times `head`, and biases of 0."""
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = list(itertools.pairwise(sizes))
    gains = [1.0] * (len(shapes) - 1) + [head]
    return [
        (gain * jax.random.normal(k, shape) / np.sqrt(shape[0]), jnp.zeros(shape[1]))
        for k, shape, gain in zip(keys, shapes, gains, strict=True)
    ]


def policy_init(key: jax.Array, made: Space, hidden: tuple[int, ...], *, head: float) -> Params:
    """Returns the weights of a policy: logits of the next token from the one-hot tokens of a prefix."""
    return init(key, (made.features.shape[1], *hidden, made.vocab), head=head)


def reward_model_init(key: jax.Array, made: Space, hidden: tuple[int, ...]) -> Params:
    """Returns the weights of a reward model; its head is N(0, 1 / sqrt(d + 1)), as in lm-human-preferences."""
    return init(key, (made.endings.shape[1], *hidden, 1), head=np.sqrt(hidden[-1]) / np.sqrt(hidden[-1] + 1))


def apply(params: Params, x: jax.Array) -> jax.Array:
    """Returns the outputs of an MLP with tanh between its layers."""
    for weight, bias in params[:-1]:
        x = jnp.tanh(x @ weight + bias[None, :])
    weight, bias = params[-1]
    return x @ weight + bias[None, :]


def optimizer(rate: float, steps: int, clip_norm: float) -> optax.GradientTransformation:
    """Returns Adam with a rate that falls linearly to 0, and gradients clipped by their global norm."""
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(optax.linear_schedule(rate, 0.0, steps)))


def updated(
    loss: Callable[[Any, Any], tuple[jax.Array, Any]], tx: optax.GradientTransformation, state: Any, batch: Any
) -> tuple[Any, Any]:
    """Returns (parameters, moments) after an update on a batch, and what the loss returns beside its value."""
    params, moments = state
    gradient, found = jax.grad(loss, has_aux=True)(params, batch)
    updates, moments = tx.update(gradient, moments, params)
    return (optax.apply_updates(params, updates), moments), found


def minimise(
    loss: Callable[[Any, Any], jax.Array], params: Any, batches: Any, *, rate: float, clip_norm: float
) -> tuple[Any, jax.Array]:
    """Returns the parameters after a step of Adam on each of the batches (stacked), and the losses."""
    tx = optimizer(rate, len(jax.tree.leaves(batches)[0]), clip_norm)

    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, moments = tx.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), batches)
    return params, losses


def batches_of(pairs: Pairs, rng: np.random.Generator, *, steps: int, size: int) -> Pairs:
    """Returns the pairs of each step [steps, size]: permutations of all pairs, one after the other."""
    count = len(pairs.chosen)
    epochs = -(-steps * size // count)
    order = np.concatenate([rng.permutation(count) for _ in range(epochs)])[: steps * size].reshape(steps, size)
    return Pairs(pairs.chosen[order], pairs.rejected[order])


@jax.jit
def logits(params: Params, at: Places) -> jax.Array:
    """Returns the logits after every prefix [P, V]."""
    return apply(params, at.features)


def token_logps(params: Params, at: Places) -> jax.Array:
    """Returns log pi of every token after every prefix [P, V]."""
    return jax.nn.log_softmax(logits(params, at))


def fixed(coefficient: jax.Array, nats: jax.Array) -> jax.Array:
    """Returns the coefficient as it is: the controller of a fixed KL penalty."""
    del nats
    return coefficient


def summed(table: jax.Array, numbers: jax.Array, at: Places) -> jax.Array:
    """Returns log pi of responses, by their numbers, from the table of tokens."""
    return jnp.sum(table[at.prefixes[numbers], at.responses[numbers]], axis=-1)


@functools.partial(jax.jit, static_argnames=("beta", "rate", "clip_norm", "label_smoothing"))
def dpo(
    start: Params, batches: Pairs, at: Places, *, beta: float, label_smoothing: float, rate: float, clip_norm: float
) -> tuple[Params, jax.Array]:
    """Returns the policy after DPO from the reference policy `start`, and the losses."""
    reference = token_logps(start, at)

    def loss(params: Params, batch: Pairs) -> jax.Array:
        table = token_logps(params, at)
        of = lambda table: preference.PairLogps(*(summed(table, side, at) for side in batch))
        values, _ = preference.dpo(of(table), of(reference), beta=beta, label_smoothing=label_smoothing)
        return jnp.mean(values)

    return minimise(loss, start, batches, rate=rate, clip_norm=clip_norm)


@functools.partial(jax.jit, static_argnames=("rate", "clip_norm", "weight_decay"))
def reward_model(
    start: Params, batches: Pairs, endings: jax.Array, *, rate: float, clip_norm: float, weight_decay: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the scores of all responses after training on the pairs (Bradley-Terry), and the losses."""

    def loss(params: Params, batch: Pairs) -> jax.Array:
        chosen, rejected = (apply(params, endings[side])[:, 0] for side in batch)
        values, _ = reward.bradley_terry(chosen, rejected, margin=jnp.zeros_like(chosen))
        decay = sum(jnp.sum(jnp.square(weight)) for weight, _ in params)
        return jnp.mean(values) + weight_decay * decay

    params, losses = minimise(loss, start, batches, rate=rate, clip_norm=clip_norm)
    return apply(params, endings)[:, 0], losses


class Rollout(NamedTuple):
    """Completions of a policy and what PPO's updates read of them, each [B, T]."""

    prefixes: jax.Array
    tokens: jax.Array
    logps: jax.Array
    values: jax.Array
    advantages: jax.Array
    returns: jax.Array


class Settings(NamedTuple):
    """The numbers of PPO."""

    batch: int
    epochs: int
    minibatches: int
    clip: float
    value_clip: float
    value_coefficient: float
    gamma: float
    lam: float
    rate: float
    clip_norm: float


def sample(key: jax.Array, table: jax.Array, count: int, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns prefixes and tokens [B, T] of responses drawn token by token, and the numbers of the responses [B]."""
    vocab = table.shape[1]
    prefix, number = jnp.zeros(count, jnp.int32), jnp.zeros(count, jnp.int32)
    columns = []
    for drawn in jax.random.split(key, length):
        token = jax.random.categorical(drawn, table[prefix]).astype(jnp.int32)
        columns.append((prefix, token))
        prefix, number = prefix * vocab + 1 + token, number * vocab + token
    prefixes, tokens = (jnp.stack(column, axis=1) for column in zip(*columns, strict=True))
    return prefixes, tokens, number


def orders(rng: np.random.Generator, iterations: int, settings: Settings) -> np.ndarray:
    """Returns the rows of each minibatch, int32 [iterations, epochs * minibatches, rows], drawn anew in every epoch."""
    draws = [rng.permutation(settings.batch) for _ in range(iterations * settings.epochs)]
    return np.array(draws, np.int32).reshape(iterations, settings.epochs * settings.minibatches, -1)


@functools.partial(jax.jit, static_argnames=("settings", "adapt"))
def ppo(
    policy: Params,
    value: Params,
    scores: jax.Array,
    coefficient: jax.Array,
    keys: jax.Array,
    orders: jax.Array,
    at: Places,
    *,
    settings: Settings,
    adapt: Adapt,
) -> tuple[Params, dict[str, jax.Array]]:
    """Returns the policies after PPO, one for each row of `scores` [runs, N] and `coefficient` [runs], and metrics.

    The reference is the policy at the start. The reward of a token is -coefficient k1, of the last one the score more.
    """
    length = at.responses.shape[1]
    reference = token_logps(policy, at)
    tx = optimizer(settings.rate, orders.shape[0] * orders.shape[1], settings.clip_norm)
    every = jnp.ones((settings.batch, length))

    def rollout(params: Any, scores: jax.Array, coefficient: jax.Array, key: jax.Array) -> tuple[Rollout, dict]:
        table = token_logps(params[0], at)
        prefixes, tokens, numbers = sample(key, table, settings.batch, length)
        logps, values = table[prefixes, tokens], apply(params[1], at.features)[prefixes, 0]
        differences = kl.k1(logps, reference[prefixes, tokens])
        rewards = advantages.token_rewards(
            penalties=coefficient * differences,
            scores=scores[numbers],
            ends=jnp.full(settings.batch, length - 1),
            weights=every,
        )
        raw = advantages.gae(rewards=rewards, values=values, weights=every, gamma=settings.gamma, lam=settings.lam)
        numbers = {
            "objective/kl": jnp.mean(jnp.sum(differences, axis=1)),
            "objective/scores": jnp.mean(scores[numbers]),
            "kl_coef": coefficient,
        }
        whitened = advantages.whiten(raw, every, ddof=0, eps=1e-8)
        return Rollout(prefixes, tokens, logps, values, whitened, raw + values), numbers

    def loss(params: Any, part: Rollout) -> tuple[jax.Array, dict]:
        logps, values = token_logps(params[0], at)[part.prefixes, part.tokens], apply(params[1], at.features)
        by_policy, metrics = policy_losses.ppo(
            logps=logps,
            old_logps=part.logps,
            advantages=part.advantages,
            clip_low=settings.clip,
            clip_high=settings.clip,
        )
        by_value, more = policy_losses.value(
            values=values[part.prefixes, 0], old_values=part.values, returns=part.returns, clip=settings.value_clip
        )
        means = {name: jnp.mean(metric) for name, metric in (metrics | more).items()}
        means["ratio_error"] = jnp.max(jnp.abs(metrics["val/ratio"] - 1))
        return jnp.mean(by_policy) + settings.value_coefficient * jnp.mean(by_value), means

    def one(scores: jax.Array, coefficient: jax.Array, keys: jax.Array) -> tuple[Params, dict[str, jax.Array]]:
        def iteration(state: Any, step: Any) -> tuple[Any, dict]:
            params, moments, coefficient = state
            key, order = step
            made, numbers = rollout(params, scores, coefficient, key)

            def update(state: Any, rows: jax.Array) -> tuple[Any, dict]:
                return updated(loss, tx, state, jax.tree.map(lambda x: x[rows], made))

            (params, moments), metrics = jax.lax.scan(update, (params, moments), order)
            numbers |= {name: jnp.mean(metric) for name, metric in metrics.items()}
            numbers["ratio_error"] = metrics["ratio_error"][0]  # before the first update after a rollout: 0
            return (params, moments, adapt(coefficient, numbers["objective/kl"])), numbers

        params = (policy, value)
        state, trace = jax.lax.scan(iteration, (params, tx.init(params), coefficient), (keys, orders))
        return state[0][0], trace

    return jax.lax.map(lambda run: one(*run), (scores, coefficient, keys))
