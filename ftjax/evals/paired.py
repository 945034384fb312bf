"""Two systems on the same items: by how much they differ, with an interval and p, whatever the kind of the metric."""

from collections.abc import Iterable
import math
import warnings

from jaxtyping import Float, Int
import numpy as np

from ftjax.evals import statistics

Values = Float[np.ndarray, " n"]
Clusters = Int[np.ndarray, " n"]  # which items belong together, and so tell less than as many apart


def difference(
    a: Values, b: Values, clusters: Clusters | None, *, level: float, resamples: int, seed: int
) -> statistics.Difference:
    """Returns the mean of b - a with interval and p: of items right (1) or wrong (0) those of `newcombe` and of
    McNemar's exact test, of others and of items in `clusters` those of the paired bootstrap. Fewer than 30 items do
    not warn: the words say it."""
    clusters = _together(clusters)
    if clusters is None and is_share(a) and is_share(b):
        low, high = newcombe(a, b, level=level)
        flips = statistics.mcnemar(a, b)
        return statistics.Difference(float(np.mean(b) - np.mean(a)), low, high, flips.p, flips.of)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", statistics.FewValues)
        return statistics.paired_bootstrap(a, b, clusters, level=level, resamples=resamples, seed=seed)


def alone(values: Values, clusters: Clusters | None, *, level: float, resamples: int, seed: int) -> statistics.Interval:
    """Returns the mean with its interval: Wilson's for a share, else the bootstrap's."""
    clusters = _together(clusters)
    if is_share(values):
        return statistics.Interval(*statistics.share(values, clusters, level=level)[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", statistics.FewValues)
        return statistics.bootstrap(values, clusters, level=level, resamples=resamples, seed=seed)


def _together(clusters: Clusters | None) -> Clusters | None:
    """Returns clusters of which one holds two items at least; None of others, which are items apart."""
    return clusters if clusters is not None and len(np.unique(clusters)) < len(clusters) else None


def of_prompts(prompts: Iterable[str]) -> Clusters:
    """Returns a number for each item, the same for those of one prompt; texts without a prompt stand alone."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(prompt or (n,), len(numbers)) for n, prompt in enumerate(prompts)])


def is_share(values: Values) -> bool:
    """Tells whether every item is right (1) or wrong (0)."""
    return bool(np.isin(values, (0, 1)).all())


def newcombe(a: Values, b: Values, *, level: float) -> tuple[float, float]:
    """Returns the interval of a difference b - a of two shares of the same items (Newcombe 1998, method 10).

    The Wilson intervals of both, at the distance that their correlation phi leaves; it has width also where one system
    is right everywhere. phi is 0 where a system has every item alike, and its numerator is moved towards 0 by n / 2.
    """
    count = len(a)
    one, two = float(np.mean(a)), float(np.mean(b))
    ends = [statistics.wilson(float(np.sum(values)), count, level=level) for values in (a, b)]
    both, neither = float(np.sum((a == 1) & (b == 1))), float(np.sum((a == 0) & (b == 0)))
    lost, gained = float(np.sum((a == 1) & (b == 0))), float(np.sum((a == 0) & (b == 1)))
    below = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    above = both * neither - lost * gained
    above = max(above - count / 2, 0.0) if above > 0 else above
    phi = above / math.sqrt(below) if below else 0.0
    (low_a, high_a), (low_b, high_b) = ends
    apart = lambda x, y: math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))
    return two - one - apart(two - low_b, high_a - one), two - one + apart(high_b - two, one - low_a)


def of_sums(above: Values, below: Values) -> Values:
    """Returns one value an item whose mean is sum(above) / sum(below) and whose spread is that of the quotient, by its
    linear form R + (a - R b) / mean(b) (Cochran 1977, 2.29): nats by tokens, with rows as the items."""
    rate = float(np.sum(above) / np.sum(below))
    return rate + (above - rate * below) / float(np.mean(below))
