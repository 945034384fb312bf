"""What numbers of a sample say of what they were drawn from: intervals of shares, correlations. NumPy alone."""

import math
import statistics
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np

Values = Float[np.ndarray, " n"]


class Share(NamedTuple):
    """A share with its interval, and the number of values that it is `of`; NaN of none."""

    value: float
    low: float
    high: float
    of: int


def wilson(successes: float, count: float, *, level: float) -> tuple[float, float]:
    """Returns the interval of a share of `count` draws at this level (Wilson 1927); of no draws (0, 1).

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) holds all shares that a score test would not
    reject: never beyond 0 and 1, and right where the share is one of them. Halves (ties) may be among the successes.
    """
    if not 0 <= successes <= count:
        raise ValueError(f"wilson: {successes} successes of {count}")
    if count == 0:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    p, wide = successes / count, z * z / count
    middle = (p + wide / 2) / (1 + wide)
    half = z * math.sqrt(p * (1 - p) / count + wide / (4 * count)) / (1 + wide)
    low, high = middle - half, middle + half
    return (0.0 if successes == 0 else max(low, 0.0)), (1.0 if successes == count else min(high, 1.0))


def share(values: Values, clusters: Int[np.ndarray, " n"] | None, *, level: float) -> Share:
    """Returns the mean of values between 0 and 1 with its Wilson interval.

    `clusters` says which values belong together (pairs of one prompt), so that each tells less: the interval is that
    of n / deff values, where deff is the variance of the mean between clusters,
    C / (C - 1) sum_c (sum_{i in c} (x_i - p))^2 / n^2, over that of n apart (Kish 1965, 8.2), but at least 1; where
    all values are alike, it is that of C. None, or clusters of one: plain Wilson.
    """
    count = len(values)
    if count == 0:
        return Share(math.nan, 0.0, 1.0, 0)
    values = values.astype(np.float64)
    mean = float(values.mean())
    effective = float(count) if clusters is None else count / _design_effect(values - mean, clusters)
    low, high = wilson(min(mean * effective, effective), effective, level=level)
    return Share(mean, low, high, count)


def _design_effect(deviations: Values, clusters: Int[np.ndarray, " n"]) -> float:
    _, place = np.unique(clusters, return_inverse=True)
    found, count = int(place.max()) + 1, len(deviations)
    if found == count:
        return 1.0
    apart = float(np.sum(deviations**2)) * count / (count - 1)
    if found == 1 or apart == 0:
        return count / found
    together = float(np.sum(np.bincount(place, deviations) ** 2)) * found / (found - 1)
    return min(max(together / apart, 1.0), count)


def pearson(x: Values, y: Values) -> float | None:
    """Returns the linear correlation; None for fewer than 2 points, or where one of the two does not vary."""
    if len(x) != len(y):
        raise ValueError(f"pearson: {len(x)} and {len(y)} values")
    if len(x) < 2:
        return None
    x, y = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (x, y))
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return None if size == 0 else float(np.clip(x @ y / size, -1, 1))


def spearman(x: Values, y: Values) -> float | None:
    """Returns the correlation of ranks, where equal values share the mean of theirs; None as `pearson` does."""
    return pearson(ranks(x), ranks(y))


def ranks(values: Values) -> Values:
    """Returns the ranks from 1, equal values at the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]
