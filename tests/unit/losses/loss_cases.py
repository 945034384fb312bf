"""Pairs, and each loss of pairs again, from its paper, in float64 NumPy and without care for extremes."""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.losses import preference, reference_free
from ftjax.losses.preference import PairLengths, PairLogps


def logps(chosen, rejected, kind=PairLogps):
    return kind(jnp.asarray(chosen, jnp.float32), jnp.asarray(rejected, jnp.float32))


# TRL 1.16 on the CPU: beta 0.1, every completion of 2 tokens (interop.md, 2f).
SETS = (
    (logps([-0.5, -10, -1], [-0.1, -30, -21]), logps([-0.5, -10.1, -0.1], [-0.1, -20.1, -0.1])),
    (logps([-2, -3, -4], [-2.5, -2.8, -5]), logps([-2.2, -2.9, -4.1], [-2.4, -3.1, -4.6])),
)
TWO_TOKENS = logps([2, 2, 2], [2, 2, 2], PairLengths)
BETA = 0.1


def run(name, policy, reference, lengths, hyper, weights=None):
    """Returns values and metrics of the loss of this name, given what its signature asks for."""
    weights = np.ones(np.shape(policy.chosen), np.float32) if weights is None else weights
    return _program(name, tuple(hyper.items()))(policy, reference, lengths, weights)


@functools.cache
def _program(name, hyper):
    """One program of all operations of a loss: it compiles faster than they do one by one."""
    function = getattr(preference, name, None) or getattr(reference_free, name)
    asked = inspect.signature(function).parameters

    def loss(*arrays):
        given = dict(zip(("policy", "reference", "lengths", "weights"), arrays, strict=True))
        return function(**{k: v for k, v in (given | {"beta": BETA} | dict(hyper)).items() if k in asked})

    return jax.jit(loss)


B = 0.3  # beta of the formulas
LN2 = float(np.log(2))


def sigma(z):
    return 1 / (1 + np.exp(-z))


def log_sigma(z):
    return np.log(sigma(z))


class Pairs(NamedTuple):
    """Sums of log-probabilities of policy and reference and numbers of tokens, [2, pairs]: chosen, rejected."""

    policy: np.ndarray
    reference: np.ndarray
    lengths: np.ndarray

    @property
    def ratios(self):
        return self.policy - self.reference

    @property
    def difference(self):
        return self.ratios[0] - self.ratios[1]

    @property
    def means(self):
        return self.policy / self.lengths

    @property
    def difference_of_means(self):
        chosen, rejected = self.ratios / self.lengths
        return chosen - rejected


def numbers():
    """Returns three pairs."""
    rng = np.random.default_rng(1)
    policy, reference = -rng.uniform(1, 9, (2, 2, 3))
    return Pairs(policy, reference, rng.integers(2, 6, (2, 3)).astype(float))


def slopes(loss, x, step=1e-5):
    """Returns central differences of the sum of a loss in each number of x."""
    out = np.empty_like(x)
    for place in np.ndindex(x.shape):
        by = np.zeros_like(x)
        by[place] = step
        out[place] = (np.sum(loss(x + by)) - np.sum(loss(x - by))) / (2 * step)
    return out


class Formula(NamedTuple):
    """A loss with its hyper-parameters besides beta."""

    loss: Any
    hyper: dict[str, float]
    at_start: float | None = None  # where policy and reference agree; None: it has no reference


def _smoothed(z, e):
    return -(1 - e) * log_sigma(z) - e * log_sigma(-z)


def _robust(x):
    return (-0.8 * log_sigma(B * x.difference) + 0.2 * log_sigma(-B * x.difference)) / 0.6


def _exo(x):
    q = np.stack([sigma(B * x.difference), sigma(-B * x.difference)])
    return np.sum(q * (np.log(q) - np.log([[0.8], [0.2]])), axis=0)


def _nca(x):
    return -log_sigma(B * x.ratios[0]) - 0.5 * np.sum(log_sigma(-B * x.ratios), axis=0)


def _sorted(x, y):
    """The k-th of x less the k-th of y, at the places of x."""
    out = np.empty_like(x)
    out[np.argsort(x)] = np.sort(x) - np.sort(y)
    return out


def _aot(x):
    margins = x.policy[0] - x.policy[1], x.reference[0] - x.reference[1]
    return _smoothed(B * _sorted(*margins), 0.2)


def _discopop(x):
    z = B * x.difference
    m = sigma(z / 0.5)
    return -log_sigma(z) * (1 - m) + np.exp(-z) * m


def _orpo(x):
    p = np.exp(x.means)
    odds = p / (1 - p)
    return -x.means[0] - B * log_sigma(np.log(odds[0] / odds[1]))


SMOOTHING = {"label_smoothing": 0.2}
FORMULAS = {
    "dpo": Formula(lambda x: _smoothed(B * x.difference, 0.2), SMOOTHING, LN2),
    "hinge": Formula(lambda x: np.maximum(0, 1 - B * x.difference), {}, 1.0),
    "ipo": Formula(lambda x: (x.difference_of_means - 1 / (2 * B)) ** 2, {}, 1 / (4 * B**2)),
    "robust": Formula(_robust, SMOOTHING, LN2),
    "exo_pair": Formula(_exo, SMOOTHING, -LN2 - np.log(0.2 * 0.8) / 2),
    "nca_pair": Formula(_nca, {}, 2 * LN2),
    "bco_pair": Formula(lambda x: -log_sigma(B * x.ratios[0]) - log_sigma(-B * x.ratios[1]), {}, 2 * LN2),
    "sppo_hard": Formula(
        lambda x: (x.ratios[0] - 1 / (2 * B)) ** 2 + (x.ratios[1] + 1 / (2 * B)) ** 2, {}, 1 / (2 * B**2)
    ),
    "aot": Formula(_aot, SMOOTHING, LN2),
    "aot_unpaired": Formula(lambda x: _smoothed(B * _sorted(*x.ratios), 0.2), SMOOTHING, LN2),
    "apo_zero": Formula(lambda x: 1 - sigma(B * x.ratios[0]) + sigma(B * x.ratios[1]), {}, 1.0),
    "apo_down": Formula(lambda x: sigma(B * x.ratios[0]) + 1 - sigma(B * x.difference), {}, 1.0),
    "discopop": Formula(_discopop, {"tau": 0.5}, LN2 / 2 + 0.5),
    "sigmoid_norm": Formula(lambda x: -log_sigma(B * x.difference_of_means), {}, LN2),
    "sft": Formula(lambda x: -x.means[0], {}),
    "simpo": Formula(
        lambda x: _smoothed(B * (x.means[0] - x.means[1]) - 0.7, 0.2), {"gamma": 0.7, "label_smoothing": 0.2}
    ),
    "cpo": Formula(
        lambda x: _smoothed(B * (x.policy[0] - x.policy[1]), 0.2) - 0.6 * x.means[0],
        {"cpo_alpha": 0.6, "label_smoothing": 0.2},
    ),
    "orpo": Formula(_orpo, {}),
}
