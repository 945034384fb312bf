"""Whether a model of preferences is as often right as it says: reliability, expected calibration error, temperature.

A margin is the logit of a preference, what a model thinks of the chosen completion less what it thinks of the rejected
one: scores of a reward model, or implicit rewards beta log(pi / ref). It says "chosen" with probability sigma(margin).
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

Margins = Float[np.ndarray, " pairs"]
Shares = Float[np.ndarray, " n"]  # from 0 to 1


class Bin(NamedTuple):
    """Pairs of about one confidence; the means are 0 where there are none."""

    confidence: float  # mean probability of what was predicted, from .5 to 1
    accuracy: float
    pairs: int


def reliability(margins: Margins, *, bins: int) -> list[Bin]:
    """Returns `bins` of equal width over confidences from .5 to 1 (Guo et al. 2017); a margin of 0 is half right."""
    confidence = 1 / (1 + np.exp(-np.abs(margins.astype(np.float64))))
    return equal_width(confidence, (np.sign(margins) + 1) / 2, least=0.5, bins=bins)


def equal_width(confidence: Shares, right: Shares, *, least: float, bins: int) -> list[Bin]:
    """Returns `bins` of equal width over confidences from `least` to 1, of what was predicted and how right it was."""
    place = np.minimum((confidence - least) / (1 - least) * bins, bins - 1).astype(int)
    count = np.bincount(place, minlength=bins)
    means = [np.bincount(place, x, minlength=bins) / np.maximum(count, 1) for x in (confidence, right)]
    return [Bin(float(c), float(a), int(n)) for c, a, n in zip(*means, count, strict=True)]


def expected_error(bins: Sequence[Bin]) -> float:
    """Returns the mean over pairs of |accuracy - confidence| of their bin (ECE, Guo et al. 2017, equation 3).

    It is biased upwards: with n pairs in each of the bins a perfect model has about .8 sqrt(p (1 - p) / n).
    """
    total = sum(b.pairs for b in bins)
    return sum(b.pairs * abs(b.accuracy - b.confidence) for b in bins) / max(total, 1)


def temperature(margins: Margins) -> float:
    """Returns the T of least mean -log sigma(margin / T), between 1e-3 and 1e3.

    Fit it on pairs that neither trained the model nor measure it. The loss is convex in 1 / T; it has no minimum inside
    of the bounds where every margin has one sign, or where the model is wrong more often than right.
    """
    margins = margins.astype(np.float64)
    # The slope of the loss by 1 / T: negative where a larger 1 / T would be better.
    slope = lambda inverse: -np.mean(margins * 0.5 * (1 - np.tanh(inverse * margins / 2)))
    low, high = np.log(1e-3), np.log(1e3)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) <= 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def equal_mass(margins: Margins, *, bins: int) -> list[Bin]:
    """Returns up to `bins` of about as many pairs each, by confidence; pairs of one confidence are in one bin.

    Equal width leaves bins almost empty where a model is always sure; these have the same error each, and their
    expected error less bias (Nguyen and O'Connor 2015, section 3).
    """
    confidence = 1 / (1 + np.exp(-np.abs(margins.astype(np.float64))))
    right = (np.sign(margins) + 1) / 2
    order = np.sort(confidence)
    starts = [part[0] for part in np.array_split(order, min(bins, max(len(order), 1)))[1:] if len(part)]
    place = np.searchsorted(np.unique(starts), confidence, side="right")
    held = [place == number for number in np.unique(place)]
    return [Bin(float(confidence[own].mean()), float(right[own].mean()), int(own.sum())) for own in held]


def chance_error(bins: Sequence[Bin]) -> float:
    """Returns the expected error that a perfect model of these confidences has by chance, in bins of this size.

    The mean over pairs of E|N(0, p (1 - p) / n)| = sqrt(2 / pi) sqrt(p (1 - p) / n): an error near it says nothing.
    """
    total = sum(b.pairs for b in bins)
    spread = sum(b.pairs * np.sqrt(b.confidence * (1 - b.confidence) / b.pairs) for b in bins if b.pairs)
    return float(np.sqrt(2 / np.pi) * spread / max(total, 1))
