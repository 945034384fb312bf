"""What numbers of a sample say of what they were drawn from: intervals, tests, agreement, strengths, sample sizes.

An interval is two-sided at its `level`, a p is two-sided. Of two systems on the same items, `a` is the one that was
there before: differences are b - a. SciPy, statsmodels and krippendorff are imported by the functions that ask them.
"""

from collections.abc import Sequence
import math
import statistics
from typing import Any, NamedTuple
import warnings

from jaxtyping import Float, Int
import numpy as np

from ftjax.errors import UserError
from ftjax.evals import extra, sign_flips

Values = Float[np.ndarray, " n"]
Battle = tuple[str, str, str]  # model_a, model_b, and who won: "model_a", "model_b" or "tie", as FastChat writes it

_RESULTS = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5}
FEW = 30  # values; with fewer, intervals and tests that lean on the normal curve are rough
SCALE, START = 400.0, 1000.0  # of ratings: 400 points are odds of 10 to 1, the mean model has 1000 (Elo; FastChat)


class FewValues(UserWarning):
    """Warns that an interval rests on fewer than 30 values."""


class Interval(NamedTuple):
    """An estimate with the ends of its interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A mean difference b - a with its interval and p, `of` so many independent items."""

    value: float
    low: float
    high: float
    p: float
    of: int


class Flips(NamedTuple):
    """Items that only b has right, items that only a has right, and the p of as many of both kinds; `of` all items."""

    gained: int
    lost: int
    p: float
    of: int


class Exact(NamedTuple):
    """A share with its exact interval, and the p of the share that it was tested against."""

    value: float
    low: float
    high: float
    p: float


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
    effective = float(count) if clusters is None else count / design_effect(values - mean, clusters)
    low, high = wilson(min(mean * effective, effective), effective, level=level)
    return Share(mean, low, high, count)


def design_effect(deviations: Values, clusters: Int[np.ndarray, " n"]) -> float:
    """Returns by how much clusters widen the variance of a mean, from deviations from it: deff of `share`."""
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


def bootstrap(
    values: Values, clusters: Int[np.ndarray, " n"] | None = None, *, level: float, resamples: int, seed: int
) -> Interval:
    """Returns the mean with the interval of means of resampled values (Efron 1979), or of resampled whole `clusters`.

    Percentiles are taken further out, for resampling n values has (n - 1) / n of their variance and normal tails where
    Student's are due (the expanded percentile of Hesterberg 2015): plain ones of 30 values cover 91 to 94 % for 95.
    Where all values are alike it is a point: for a share, `share` is better. Warns of fewer than 30; fewer than four,
    or too few resamples for the level, have no ends.
    """
    mean, means, count = _resampled(values, clusters, resamples=resamples, seed=seed)
    return Interval(mean, *_percentiles(means, count, level))


def paired_bootstrap(
    a: Values, b: Values, clusters: Int[np.ndarray, " n"] | None = None, *, level: float, resamples: int, seed: int
) -> Difference:
    """Returns the mean of b - a over the same items with the interval of `bootstrap`; its p is at most 1 - level
    if and only if that interval leaves 0 out, and that of `sign_flips.student` where no resampled mean reaches 0."""
    gaps = _paired("paired_bootstrap", a, b)
    mean, means, count = _resampled(gaps, clusters, resamples=resamples, seed=seed)
    low, high = _percentiles(means, count, level)
    from scipy import special

    beyond = 1 + min(np.sum(means <= 0), np.sum(means >= 0))  # one more: no p is 0
    tail = special.ndtri(min(beyond / (resamples + 1), 0.5)) * math.sqrt((count - 1) / count)
    p = 1.0 if count == 1 else float(2 * special.stdtr(count - 1, tail))
    if beyond == 1 and math.isfinite(low):  # resamples tell no smaller p apart, and Holm multiplies it
        p = min(p, sign_flips.student(gaps, clusters))
    return Difference(mean, low, high, p, count)


def _percentiles(means: Values, count: int, level: float) -> tuple[float, float]:
    if count == 1:
        return -math.inf, math.inf
    from scipy import special

    tail = special.ndtr(math.sqrt(count / (count - 1)) * special.stdtrit(count - 1, (1 - level) / 2))
    place = int(tail * (len(means) + 1))
    ordered = np.sort(means)
    return (float(ordered[place - 1]), float(ordered[-place])) if place else (-math.inf, math.inf)


def _resampled(
    values: Values, clusters: Int[np.ndarray, " n"] | None, *, resamples: int, seed: int
) -> tuple[float, Values, int]:
    values = _some("bootstrap", values)
    if clusters is None:
        sums, sizes = values, None
    else:
        sums, sizes = sign_flips.sums_of(values, clusters)
    count = len(sums)
    if count < FEW:
        warnings.warn(f"{count} values: an interval of fewer than {FEW} is rough", FewValues, stacklevel=3)
    rng, means = np.random.default_rng(seed), np.empty(resamples)
    rows = max(1, 4_000_000 // count)  # at most 32 MB of indices
    for first in range(0, resamples, rows):
        chosen = rng.integers(0, count, (min(rows, resamples - first), count))
        means[first : first + rows] = sums[chosen].sum(1) / (count if sizes is None else sizes[chosen].sum(1))
    return float(values.mean()), means, count


def permutation(a: Values, b: Values, *, resamples: int, seed: int) -> float:
    """Returns the p of a mean difference b - a under exchange of a and b within items (Fisher 1935); exact where all
    2^n exchanges are no more than `resamples`."""
    from scipy import stats

    gaps = _paired("permutation", a, b)
    sizes = {"n_resamples": resamples, "batch": max(1, 4_000_000 // len(gaps)), "rng": np.random.default_rng(seed)}
    found = stats.permutation_test((gaps,), np.mean, permutation_type="samples", vectorized=True, **sizes)
    return float(found.pvalue)


def mcnemar(a: Values, b: Values) -> Flips:
    """Returns how many items flipped each way between two systems that have each item right (1) or wrong (0), and the
    exact p (McNemar 1947 with binomial probabilities): the items that both have alike say nothing of the difference.
    """
    gaps = _paired("mcnemar", a, b)
    if not np.isin(a, (0, 1)).all() or not np.isin(b, (0, 1)).all():
        raise ValueError("mcnemar: right is 1 and wrong is 0; compare scores between them with paired_bootstrap")
    from scipy import special

    gained, lost = int(np.sum(gaps > 0)), int(np.sum(gaps < 0))
    p = min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))
    return Flips(gained, lost, p, len(gaps))


def exact_binomial(successes: int, count: int, *, share: float, level: float) -> Exact:
    """Returns the share of successes with the interval of Clopper and Pearson (1934), which covers at least its level
    and often more, and the exact p of `share`."""
    from scipy import stats

    if not 0 <= successes <= count or count == 0:
        raise ValueError(f"exact_binomial: {successes} successes of {count}")
    found = stats.binomtest(successes, count, share)
    low, high = map(float, found.proportion_ci(level, method="exact"))
    return Exact(successes / count, low, high, float(found.pvalue))


def cohen_kappa(a: Sequence[Any], b: Sequence[Any], *, level: float) -> Interval:
    """Returns by how much two raters agree beyond chance, (p_o - p_e) / (1 - p_e) (Cohen 1960), with the interval of
    its asymptotic variance (Fleiss, Cohen and Everitt 1969); NaN where both give every item the one same label."""
    inter_rater = extra.library("statsmodels.stats.inter_rater")
    if len(a) != len(b) or not len(a):
        raise ValueError(f"cohen_kappa: {len(a)} and {len(b)} labels")
    labels, place = np.unique(np.concatenate([np.asarray(a), np.asarray(b)]), return_inverse=True)
    if len(labels) == 1:
        return Interval(math.nan, math.nan, math.nan)
    table = np.zeros((len(labels), len(labels)))
    np.add.at(table, (place[: len(a)], place[len(a) :]), 1)
    with np.errstate(invalid="ignore"):  # it takes the root of a variance of 0, which rounding may make negative
        found = inter_rater.cohens_kappa(table)
    half = statistics.NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(max(float(found.var_kappa), 0.0))
    value = float(found.kappa)
    return Interval(value, max(value - half, -1.0), min(value + half, 1.0))


def fleiss_kappa(ratings: np.ndarray) -> float:
    """Returns by how much raters agree beyond chance (Fleiss 1971); one row an item, as many raters for each, who need
    not be the same. NaN where every rating is the same."""
    inter_rater = extra.library("statsmodels.stats.inter_rater")
    table, labels = inter_rater.aggregate_raters(_ratings("fleiss_kappa", ratings))
    return math.nan if len(labels) == 1 else float(inter_rater.fleiss_kappa(table, method="fleiss"))


def krippendorff_alpha(ratings: np.ndarray, *, metric: str) -> float:
    """Returns 1 less the disagreement of raters over that of chance (Krippendorff 2011); one row an item, one column a
    rater, NaN where a rater gave none. `metric`: nominal, ordinal, interval or ratio. NaN where all ratings are alike.
    """
    krippendorff = extra.library("krippendorff")
    ratings = _ratings("krippendorff_alpha", ratings).astype(np.float64)
    together = ratings[np.sum(~np.isnan(ratings), axis=1) > 1]
    if not len(together):
        raise ValueError("krippendorff_alpha: no item has two ratings")
    if len(np.unique(together[~np.isnan(together)])) == 1:
        return math.nan
    return float(krippendorff.alpha(reliability_data=ratings.T, level_of_measurement=metric))


def elo(battles: Sequence[Battle], *, k: float) -> dict[str, float]:
    """Returns the rating of each model after these battles in this order, by Elo's rule r += k (result - expected).

    It forgets, and other orders give other ratings: for models that do not change take `bradley_terry`. FastChat's k
    is 4.
    """
    ratings = dict.fromkeys(_models(battles), START)
    for one, other, winner in battles:
        expected = 1 / (1 + 10 ** ((ratings[other] - ratings[one]) / SCALE))
        gain = k * (_RESULTS[winner] - expected)
        ratings[one] += gain
        ratings[other] -= gain
    return ratings


def bradley_terry(battles: Sequence[Battle]) -> dict[str, float]:
    """Returns ratings of largest likelihood, P(a beats b) = 1 / (1 + 10^((r_b - r_a) / 400)) (Bradley and Terry 1952),
    with mean 1000; a tie is half a win of each. UserError where some models never lost to the others: they have none.
    """
    from scipy import optimize, sparse

    names = _models(battles)
    place = {name: number for number, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for one, other, winner in battles:
        wins[place[one], place[other]] += _RESULTS[winner]
        wins[place[other], place[one]] += 1 - _RESULTS[winner]
    apart, group = sparse.csgraph.connected_components(wins, directed=True, connection="strong")
    if apart > 1:
        found = [
            ", ".join(name for name, own in zip(names, group, strict=True) if own == part) for part in range(apart)
        ]
        raise UserError(
            f"no ratings by Bradley and Terry: not every one of {' | '.join(found)} has won and lost against the rest, "
            "so their distance is infinite; give more battles, or leave models out"
        )

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        gaps = x[:, None] - x[None, :]
        slope = -wins / (1 + np.exp(gaps))
        return float(np.sum(wins * np.logaddexp(0, -gaps))), slope.sum(1) - slope.sum(0)

    found = optimize.minimize(loss, np.zeros(len(names)), jac=True, method="BFGS", options={"gtol": 1e-9})
    scores = (found.x - found.x.mean()) * SCALE / math.log(10) + START
    return dict(zip(names, map(float, scores), strict=True))


def _models(battles: Sequence[Battle]) -> list[str]:
    for battle in battles:
        if battle[2] not in _RESULTS:
            raise ValueError(f"a battle ends with {', '.join(_RESULTS)}, not with {battle[2]!r}")
    return sorted({name for one, other, _ in battles for name in (one, other)})


def holm(p: Sequence[float]) -> Values:
    """Returns the p of tests made together, such that one under .05 is found in 5 % of families of true nulls (Holm
    1979): the k-th smallest of n times n - k + 1, and no less than those before it."""
    values = np.array(p, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p lies between 0 and 1: {p}")
    order = np.argsort(values)
    values[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return values


def benjamini_hochberg(p: Sequence[float]) -> Values:
    """Returns the p of tests made together, such that 5 % of those under .05 are expected to be false (Benjamini and
    Hochberg 1995, for independent or positively dependent tests)."""
    from scipy import stats

    return stats.false_discovery_control(p) if len(p) else np.zeros(0)


def sample_size(share: float, *, against: float, alpha: float, power: float) -> int:
    """Returns how many draws tell a true `share` from the share `against` with this power, by the two-sided test of one
    share, to the nearest draw: ((z_(1 - alpha / 2) sqrt(q (1 - q)) + z_power sqrt(p (1 - p))) / (p - q))^2."""
    if not (0 < against < 1 and 0 <= share <= 1 and share != against):
        raise ValueError(f"sample_size: the share {share} against {against}")
    z = statistics.NormalDist().inv_cdf
    spread = z(1 - alpha / 2) * math.sqrt(against * (1 - against)) + z(power) * math.sqrt(share * (1 - share))
    return max(1, round((spread / (share - against)) ** 2))


def minimum_detectable_effect(count: int, *, against: float, alpha: float, power: float) -> float:
    """Returns the least p - q above q = `against` that `count` draws find with this power, as `sample_size` has it; NaN
    where even a share of 1 is not enough."""
    from scipy import optimize

    z = statistics.NormalDist().inv_cdf
    fixed = z(1 - alpha / 2) * math.sqrt(against * (1 - against))
    over = lambda p: (p - against) * math.sqrt(count) - fixed - z(power) * math.sqrt(p * (1 - p))
    return float(optimize.brentq(over, against, 1) - against) if over(1.0) >= 0 else math.nan


def _some(name: str, values: Values) -> Values:
    values = np.asarray(values, np.float64)
    if not values.size:
        raise UserError(f"{name}: there is no value to measure; give at least one item")
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"{name}: finite numbers in one row, not {values}")
    return values


def _paired(name: str, a: Values, b: Values) -> Values:
    if len(a) != len(b):
        raise UserError(f"{name}: {len(a)} and {len(b)} values; both systems need one for each of the same items")
    return _some(name, np.asarray(b, np.float64) - np.asarray(a, np.float64))


def _ratings(name: str, ratings: np.ndarray) -> np.ndarray:
    ratings = np.asarray(ratings)
    if ratings.ndim != 2 or ratings.shape[0] < 1 or ratings.shape[1] < 2:
        raise ValueError(f"{name}: one row an item, one column a rater, at least two of these, not {ratings.shape}")
    return ratings
