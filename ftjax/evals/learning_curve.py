"""How a metric falls with the number of rows: a power law with its uncertainty, and what more rows would gain.

The law is y = a + b n^-c, which held-out loss follows over orders of magnitude (Hestness et al. 2017, 1712.00409,
section 3; Rosenfeld et al. 2020, 1909.12673, equation 1 without the model's size).
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import numpy as np

RATES = (0.05, 3.0)  # of c: below, the law is a logarithm; above, nothing is left after the first sizes
DRAWS = 1000
LEVEL = 0.95
FACTORS = (2, 4, 10)  # times as many rows as the largest size
SIZES, RUNS = 3, 4  # at least: the law has three numbers
_GRID = np.geomspace(*RATES, 150)


class Law(NamedTuple):
    """y = a + b n^-c."""

    a: float
    b: float
    c: float

    def at(self, rows: Any) -> Any:
        """Returns the metric at so many rows."""
        return self.a + self.b * np.asarray(rows, float) ** -self.c


class Gain(NamedTuple):
    """By how much the metric gets better up to so many rows, with its 95 % interval."""

    rows: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


class Curve(NamedTuple):
    """A law through runs, with laws that the bootstrap found as likely."""

    law: Law
    draws: np.ndarray  # [DRAWS, 3]
    largest: int
    lower_is_better: bool

    def gain(self, start: int, rows: int) -> Gain:
        """Returns what is gained from `start` rows to `rows`; below 0 it gets worse."""
        sign = 1 if self.lower_is_better else -1
        ends = np.array([start, rows], float)
        value = sign * float(np.subtract(*self.law.at(ends)))
        each = self._drawn(ends)
        low, high = interval(sign * (each[:, 0] - each[:, 1]))
        return Gain(rows, value, min(float(low), value), max(float(high), value))

    def band(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ends of the interval of the law at numbers of rows."""
        low, high = interval(self._drawn(rows))
        return low, high

    def _drawn(self, rows: np.ndarray) -> np.ndarray:
        """Returns what each law of the bootstrap says at numbers of rows, [DRAWS, rows]."""
        return np.asarray(Law(*self.draws.T[..., None]).at(rows))

    def rows_for(self, gain: float) -> int | None:
        """Returns how many rows gain so much over the largest size; None where the law never does."""
        sign = 1 if self.lower_is_better else -1
        left = self.law.b * self.largest**-self.law.c - sign * gain  # of b n^-c
        if gain <= 0 or self.law.b == 0 or left / self.law.b <= 0:
            return None
        found = (left / self.law.b) ** (-1 / self.law.c)
        return math.ceil(found) if found < 1e12 else None


def fit(rows: Sequence[int], values: Sequence[float], *, lower_is_better: bool, floor: float, seed: int) -> Curve:
    """Returns the least-squares law through (rows, value) of runs, with a bootstrap of its residuals.

    The law ends at `floor` or above: a loss that cannot be negative has 0, others -inf. For a rate c the best a and b
    are linear (variable projection), so c alone is searched. The residuals are drawn with replacement, and the law is
    fitted again to each draw. They are made larger: by sqrt(runs / (runs - 3)), for a law of three numbers leaves too
    little of them (Davison and Hinkley 1997, 6.2), and by what Student's tails are longer than normal ones.
    """
    from scipy import optimize, stats

    n, y = np.asarray(rows, float), np.asarray(values, float)
    place = int(_squares(n, y[None], _GRID, floor)[:, 0].argmin())
    ends = _GRID[max(place - 1, 0)], _GRID[min(place + 1, len(_GRID) - 1)]
    cost = lambda c: float(_squares(n, y[None], np.array([c]), floor)[0, 0])
    best = float(optimize.minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 1e-8}).x)
    best = min((best, float(_GRID[place])), key=cost)
    (a,), (b,) = _linear(n, y[None], np.array([best]), floor)
    law = Law(float(a), float(b), best)
    residuals = y - law.at(n)
    free = max(len(n) - 3, 1)
    longer = stats.t.ppf((1 + LEVEL) / 2, free) / stats.norm.ppf((1 + LEVEL) / 2)
    residuals = (residuals - residuals.mean()) * math.sqrt(len(n) / free) * longer
    drawn = law.at(n) + np.random.default_rng(seed).choice(residuals, (DRAWS, len(n)))
    rates = _GRID[_squares(n, drawn, _GRID, floor).argmin(axis=0)]
    draws = np.stack([*_linear(n, drawn, rates, floor), rates], axis=1)
    return Curve(law, draws, int(n.max()), lower_is_better)


def interval(draws: np.ndarray) -> np.ndarray:
    """Returns the ends of the 95 % interval of what was drawn along the first axis."""
    tail = (1 - LEVEL) / 2
    return np.quantile(draws, (tail, 1 - tail), axis=0)


def _squares(n: np.ndarray, y: np.ndarray, rates: np.ndarray, floor: float) -> np.ndarray:
    """Returns what the best a and b leave of the squares, [rates, draws]."""
    left = np.empty((len(rates), len(y)))
    for place, c in enumerate(rates):
        a, b = _linear(n, y, np.array([c]), floor)
        left[place] = ((y - a[:, None] - b[:, None] * n**-c) ** 2).sum(axis=1)
    return left


def _scaled(n: np.ndarray, c: Any) -> np.ndarray:
    return (n / n.min()) ** -c


def _linear(n: np.ndarray, y: np.ndarray, rates: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best a and b of each draw at its rate, or all at one: a simple regression on n^-c, through `floor`
    where its a would be below."""
    x = _scaled(n, rates[:, None])
    left = x - x.mean(axis=1, keepdims=True)
    slope = (left * y).sum(axis=1) / (left**2).sum(axis=1)
    a = y.mean(axis=1) - slope * x.mean(axis=1)
    if math.isfinite(floor):
        slope = np.where(a < floor, (x * (y - floor)).sum(axis=1) / (x**2).sum(axis=1), slope)
    return np.maximum(a, floor), slope * n.min() ** rates


def lower_is_better(metric: str) -> bool:
    """Returns whether a metric of a run's summary is better when it is lower, by its name."""
    return any(word in metric.lower() for word in ("loss", "perplexity", "bits", "kl"))


class Answer(NamedTuple):
    """Whether the rows are enough, in a word and in a sentence; with the curve where one was fitted."""

    verdict: str  # enough | more | worse | undecided
    text: str
    curve: Curve | None
    gains: tuple[Gain, ...]


def answer(rows: Sequence[int], values: Sequence[float], *, metric: str, worth: float | None, seed: int) -> Answer:
    """Returns what runs at several sizes say of more rows.

    `worth` is the least gain for which twice the rows are worth their price (None: a hundredth of the metric).
    Values that are not finite, of runs that diverged, are left out and named.
    """
    finite = [(n, y) for n, y in zip(rows, values, strict=True) if math.isfinite(y)]
    lost = len(rows) - len(finite)
    note = f" ({lost} of {len(rows)} runs have no finite {metric} and are left out)" if lost else ""
    sizes = sorted({n for n, _ in finite})
    mean = {size: float(np.mean([y for n, y in finite if n == size])) for size in sizes}
    if len(sizes) < SIZES or len(finite) < RUNS:
        seen = "; ".join(f"{metric} {mean[size]:.4g} at {size:,} rows" for size in sizes) or "no run is done"
        text = (
            f"undecided: {_counted(len(sizes), 'size')} and {_counted(len(finite), 'run')} are too few for a curve of "
            f"three numbers ({seen}); give --sizes at least {SIZES}, and --seeds for {RUNS} runs or more{note}"
        )
        return Answer("undecided", text, None, ())
    falls = lower_is_better(metric)
    floor = 0.0 if falls and min(y for _, y in finite) >= 0 else -math.inf
    curve = fit(*zip(*finite, strict=True), lower_is_better=falls, floor=floor, seed=seed)
    first, last = sizes[0], sizes[-1]
    worth = abs(float(curve.law.at(last))) / 100 if worth is None else worth
    so_far = curve.gain(first, last)
    gains = tuple(curve.gain(last, factor * last) for factor in FACTORS)
    seen = f"from {first:,} to {last:,} rows {metric} went from {mean[first]:.4g} to {mean[last]:.4g}"
    if so_far.high < 0:
        text = f"worse: {seen}: more of these rows do harm; look at them with data.py check, or train longer{note}"
        return Answer("worse", text, curve, gains)
    double = gains[0]
    said = f"doubling to {double.rows:,} rows would gain {double}"
    flat = f"; the curve is flat: {seen}" if so_far.low <= 0 or so_far.high <= worth else ""
    if double.high <= worth:
        return Answer("enough", f"enough: {said}, and {worth:.3g} is what it should{flat}{note}", curve, gains)
    if double.low >= worth:
        wanted = curve.rows_for(worth)
        least = f"; a gain of {worth:.3g} needs about {wanted:,} rows" if wanted else ""
        return Answer("more", f"more: {said}{least}{note}", curve, gains)
    more = "more seeds or a larger size would tell"
    return Answer("undecided", f"undecided: {said}, where {worth:.3g} is worth it; {more}{flat}{note}", curve, gains)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
