"""The smallest model that is capable: quality against what it costs, the front, and the first that meets a bar."""

from collections.abc import Sequence
from typing import Any, NamedTuple

APART = 1.5  # seconds of less than this times as many are alike: one model, timed twice, differed by 1.2 and by 4 times


class Point(NamedTuple):
    """A system's quality with its interval, and its price: parameters or seconds."""

    name: str
    value: float
    low: float
    high: float
    price: float


def front(points: Sequence[Point], *, better: int, apart: float) -> list[str]:
    """Returns who is on the Pareto front, cheapest first: nobody is as cheap and better, or as good and cheaper. What
    costs less than `apart` times as much costs as much; 1 of what is counted and not timed."""
    found = []
    for one in sorted(points, key=lambda point: (point.price, -better * point.value)):
        beaten = any(
            better * other.value >= better * one.value
            and (
                _as_cheap(other.price, one.price, apart)
                if other.value != one.value
                else other.price < one.price and not _as_cheap(one.price, other.price, apart)
            )
            for other in points
        )
        if not beaten:
            found.append(one.name)
    return found


def _as_cheap(price: float, other: float, apart: float) -> bool:
    return price <= other or price < apart * other


def smallest(points: Sequence[Point], *, better: int, bar: float, apart: float) -> list[str]:
    """Returns the cheapest whose interval lies at or beyond the bar with its worse end, and those that also do and cost
    less than `apart` times as much; none where there is none."""
    order = sorted(points, key=lambda point: (point.price, -better * point.value))
    met = [one for one in order if better * (one.low if better > 0 else one.high) >= better * bar]
    return [one.name for one in met if one is met[0] or one.price < apart * met[0].price]


def about(
    names: Sequence[str],
    values: Sequence[tuple[float, float, float]],
    prices: Sequence[float | None],
    *,
    price: str,
    better: int,
    bar: float | None,
) -> dict[str, Any] | None:
    """Returns front and smallest by one price for JSON; None where all systems that have one have the same, or seconds
    that are alike."""
    apart = APART if price.endswith("_seconds") else 1.0
    points = [
        Point(name, *value, cost) for name, value, cost in zip(names, values, prices, strict=True) if cost is not None
    ]
    costs = sorted(point.price for point in points)
    if not costs or _as_cheap(costs[-1], costs[0], apart):
        return None
    met = [] if bar is None else smallest(points, better=better, bar=bar, apart=apart)
    return {
        "price": price,
        "points": [point._asdict() for point in sorted(points, key=lambda point: point.price)],
        "front": front(points, better=better, apart=apart),
        "bar": bar,
        "smallest": met[0] if met else None,
        "as_small": met[1:],
    }
