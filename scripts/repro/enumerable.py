"""S2, a space of responses that can all be written down: V^T of them, so every expectation is a sum in float64.

A policy gives logits for the next token after each prefix, [prefixes, V]; from them log pi of every response, KL,
expected reward and the optimum of reward less KL are exact. What is trained stands in policies.py.
"""

import itertools
from typing import NamedTuple

import numpy as np


class Space(NamedTuple):
    """All responses of `length` tokens, in lexicographic order, and all their prefixes, shorter ones first."""

    vocab: int
    length: int
    responses: np.ndarray  # int32 [N, T]
    prefixes: np.ndarray  # int32 [N, T]: the number of the prefix before each token of a response
    features: np.ndarray  # float32 [P, T * V]: one-hot of the tokens of a prefix, zeros for those to come
    endings: np.ndarray  # float32 [N, T * V]: the same of whole responses


class Pairs(NamedTuple):
    """Preferences between responses, by their numbers."""

    chosen: np.ndarray  # int32 [pairs]
    rejected: np.ndarray  # int32 [pairs]


def space(vocab: int, length: int) -> Space:
    """Returns the space of V^T responses."""
    responses = np.array(list(itertools.product(range(vocab), repeat=length)), np.int32)
    numbers = np.arange(len(responses))
    before = [sum(vocab**k for k in range(t)) for t in range(length + 1)]  # prefixes shorter than t tokens
    prefixes = np.stack([before[t] + numbers // vocab ** (length - t) for t in range(length)], axis=1)
    endings = np.eye(vocab, dtype=np.float32)[responses].reshape(len(responses), -1)
    features = np.zeros((before[length], length * vocab), np.float32)
    for t in range(length):
        features[prefixes[:, t], : t * vocab] = endings[:, : t * vocab]
    return Space(vocab, length, responses, prefixes.astype(np.int32), features, endings)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns log-probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def response_logps(made: Space, logits: np.ndarray) -> np.ndarray:
    """Returns log pi of every response [N] from the logits after each prefix [P, V]."""
    return log_softmax(logits)[made.prefixes, made.responses].sum(axis=1)


def kl(logps: np.ndarray, reference: np.ndarray) -> float:
    """Returns KL(pi || ref) in nats, of log-probabilities of every response."""
    return float(np.sum(np.exp(logps) * (logps - reference)))


def mean(logps: np.ndarray, values: np.ndarray) -> float:
    """Returns the expectation of values of responses."""
    return float(np.sum(np.exp(logps) * values))


def standardise(values: np.ndarray, logps: np.ndarray) -> np.ndarray:
    """Returns the values with mean 0 and standard deviation 1 under a policy."""
    centred = values - mean(logps, values)
    return centred / np.sqrt(mean(logps, centred**2))


def tilt(reference: np.ndarray, scores: np.ndarray, beta: float) -> np.ndarray:
    """Returns log pi* of the policy that maximises E[score] - beta KL(pi || ref): pi* ~ ref exp(score / beta)."""
    return log_softmax(reference + scores / beta)


def tilt_at(reference: np.ndarray, scores: np.ndarray, nats: float) -> np.ndarray:
    """Returns the tilt whose KL is `nats` (bisection in log beta); past the largest KL of a tilt, the greediest one."""
    low, high = np.log(1e-5), np.log(1e5)  # the KL falls with beta
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if kl(tilt(reference, scores, np.exp(middle)), reference) > nats else (low, middle)
    return tilt(reference, scores, np.exp(high))


def frontier(reference: np.ndarray, rewards: np.ndarray, nats: float) -> float:
    """Returns the largest expected reward of any policy whose KL to the reference is at most `nats`."""
    return mean(tilt_at(reference, rewards, nats), rewards)


def implicit_rewards(logps: np.ndarray, reference: np.ndarray, beta: float) -> np.ndarray:
    """Returns beta log(pi / ref) of every response (Rafailov et al. 2023, equation 5, but for a constant)."""
    return beta * (logps - reference)


def gold_rewards(
    made: Space, reference: np.ndarray, rng: np.random.Generator, *, free: int, slope: float
) -> np.ndarray:
    """Returns the true reward of every response, mean 0 and standard deviation 1 under the reference.

    A worth of each token at each place, a worth of each pair of neighbours (all standard normal), and `slope` less for
    every occurrence of the most frequent token past the `free`-th.
    """
    unary = rng.standard_normal((made.length, made.vocab))
    neighbours = rng.standard_normal((made.vocab, made.vocab))
    y = made.responses
    rewards = unary[np.arange(made.length), y].sum(axis=1) + neighbours[y[:, :-1], y[:, 1:]].sum(axis=1)
    most = (y[:, :, None] == np.arange(made.vocab)).sum(axis=1).max(axis=1)
    return standardise(rewards - slope * np.maximum(most - free, 0), reference)


def draw_pairs(
    logps: np.ndarray, rewards: np.ndarray, rng: np.random.Generator, *, count: int, sharpness: float
) -> Pairs:
    """Returns pairs of different responses of a policy; a is chosen with probability sigmoid(sharpness (r_a - r_b))."""
    probabilities = np.exp(logps) / np.exp(logps).sum()
    drawn = np.zeros((0, 2), int)
    for _ in range(20):
        more = rng.choice(len(logps), size=(2 * count, 2), p=probabilities)
        drawn = np.concatenate([drawn, more[more[:, 0] != more[:, 1]]])[:count]
    if len(drawn) < count:
        raise ValueError(f"only {len(drawn)} of {count} pairs are of two different responses; the policy is too sharp")
    first = rng.random(count) < sigmoid(sharpness * (rewards[drawn[:, 0]] - rewards[drawn[:, 1]]))
    chosen, rejected = np.where(first, drawn.T, drawn.T[::-1])
    return Pairs(chosen.astype(np.int32), rejected.astype(np.int32))


def bayes_accuracy(pairs: Pairs, rewards: np.ndarray, sharpness: float) -> float:
    """Returns the expected accuracy, on these responses, of who knows the true reward and not the labels."""
    return float(np.mean(sigmoid(sharpness * np.abs(rewards[pairs.chosen] - rewards[pairs.rejected]))))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-x)), which does not overflow."""
    return 0.5 * (1 + np.tanh(x / 2))


def best_of(logps: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """Returns log-probabilities of the response of the highest score out of n draws; of equal scores the last counts.

    With F the chance of a score no higher, that is F^n less the same of the next lower response.
    """
    order = np.argsort(scores, kind="stable")
    above = np.exp(logps[order])[::-1].cumsum()[::-1]  # the chance of this response or a higher one: small at the top
    up_to, below = n * np.log1p(-np.append(above[1:], 0.0)), n * np.log1p(-np.minimum(above, 1.0 - 1e-16))
    found = np.empty_like(logps)
    with np.errstate(divide="ignore"):  # a response that is hopeless has the probability 0
        found[order] = up_to + np.log(-np.expm1(below - up_to))
    return found
