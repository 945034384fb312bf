"""The p of a mean gap between two systems, where each independent item could have had its gap the other way round.

Items in `clusters` (rows of one prompt) turn together; None: each by itself.
"""

import math

from jaxtyping import Float, Int
import numpy as np

Values = Float[np.ndarray, " n"]
Clusters = Int[np.ndarray, " n"]


def exact(gaps: Values, clusters: Clusters | None) -> float:
    """Returns the two-sided p of whole gaps (items won less items lost) among all 2^n turns of their signs (Fisher
    1935); of gaps of 1, 0 and -1 it is McNemar's exact p."""
    from scipy import special

    sums = gaps if clusters is None else sums_of(gaps, clusters)[0]
    sizes, counts = np.unique(np.abs(np.rint(sums)).astype(np.int64), return_counts=True)
    chances = np.ones(1)  # of each sum of the gaps that are turned upwards, from 0 on
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        if size:
            ways = np.zeros(size * count + 1)
            up = np.arange(count + 1)
            ways[::size] = np.exp(
                special.gammaln(count + 1) - special.gammaln(up + 1) - special.gammaln(count - up + 1)
                - count * math.log(2)
            )  # fmt: skip
            chances = np.convolve(chances, ways)
    total = len(chances) - 1
    fewer = (total - abs(round(float(np.sum(sums))))) // 2  # of the side that has less
    return min(1.0, 2 * float(np.sum(chances[: fewer + 1])))


def student(gaps: Values, clusters: Clusters | None) -> float:
    """Returns the two-sided p of Student's t of the mean of two items or more, but no less than 2^(1 - n): as rarely n
    gaps of any size have one sign by chance. In clusters the mean is a quotient of sums (Cochran 1977, 2.11)."""
    from scipy import special

    sums, sizes = (gaps, np.ones(len(gaps))) if clusters is None else sums_of(gaps, clusters)
    count, mean = len(sums), float(np.sum(sums) / np.sum(sizes))
    error = math.sqrt(count / (count - 1) * float(np.sum((sums - mean * sizes) ** 2))) / float(np.sum(sizes))
    p = 2 * float(special.stdtr(count - 1, -abs(mean) / error)) if error else 0.0 if mean else 1.0
    return max(p, 2.0 ** (1 - count))


def sums_of(values: Values, clusters: Clusters) -> tuple[Values, Values]:
    """Returns the sum of the values of each cluster, and how many they are."""
    _, place = np.unique(clusters, return_inverse=True)
    return np.bincount(place, values), np.bincount(place).astype(np.float64)
