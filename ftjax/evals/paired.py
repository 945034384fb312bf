"""Two systems on the same items: by how much they differ, with an interval and p, whatever the kind of the metric."""

from collections.abc import Iterable
import math
import warnings

from jaxtyping import Float, Int
import numpy as np

from ftjax.evals import sign_flips, statistics

Values = Float[np.ndarray, " n"]
Clusters = Int[np.ndarray, " n"]  # which items belong together, and so tell less than as many apart


def difference(
    a: Values, b: Values, clusters: Clusters | None, *, level: float, resamples: int, seed: int
) -> statistics.Difference:
    """Returns the mean of b - a with interval and p: of items right (1) or wrong (0) those of `newcombe` and of
    McNemar's exact test, in `clusters` that of `sign_flips`; of others those of the paired bootstrap. Fewer than 30
    items do not warn: the words say it."""
    clusters = _together(clusters)
    if is_share(a) and is_share(b):
        low, high = newcombe(a, b, clusters, level=level)
        of = len(a) if clusters is None else len(np.unique(clusters))
        p = statistics.mcnemar(a, b).p if clusters is None else sign_flips.exact(b - a, clusters)
        return statistics.Difference(float(np.mean(b) - np.mean(a)), low, high, p, of)
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


def newcombe(a: Values, b: Values, clusters: Clusters | None = None, *, level: float) -> tuple[float, float]:
    """Returns the interval of a difference b - a of two shares of the same items (Newcombe 1998, method 10).

    The Wilson intervals of both, at the distance that their correlation phi leaves; it has width also where one
    system is right everywhere. phi is 0 where a system has every item or prompt alike, and its covariance is moved
    towards 0 by 1 / 2n. Of items in `clusters` both Wilson intervals are those of `statistics.share`, phi is the
    correlation of the sums of clusters less their share, and n the smaller of the two effective numbers.
    """
    one, two = float(np.mean(a)), float(np.mean(b))
    (low_a, high_a), (low_b, high_b) = (statistics.share(values, clusters, level=level)[1:3] for values in (a, b))
    gaps = [values - values.mean() for values in (a, b)]
    count = len(a) if clusters is None else len(a) / max(statistics.design_effect(gap, clusters) for gap in gaps)
    first, second = gaps if clusters is None else (sign_flips.sums_of(gap, clusters)[0] for gap in gaps)
    size, spread = float(np.linalg.norm(first) * np.linalg.norm(second)), math.sqrt(one * (1 - one) * two * (1 - two))
    phi = float(first @ second) / size if size > 1e-9 else 0.0
    phi = max(phi - 1 / (2 * count * spread), 0.0) if phi > 0 else phi
    apart = lambda x, y: math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))
    return two - one - apart(two - low_b, high_a - one), two - one + apart(high_b - two, one - low_a)


def of_sums(above: Values, below: Values) -> Values:
    """Returns one value an item whose mean is sum(above) / sum(below) and whose spread is that of the quotient, by its
    linear form R + (a - R b) / mean(b) (Cochran 1977, 2.29): nats by tokens, with rows as the items."""
    rate = float(np.sum(above) / np.sum(below))
    return rate + (above - rate * below) / float(np.mean(below))
