"""The smallest model that is capable: quality against what it costs, the front, and the first that meets a bar."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A system's quality with its interval, and its price: parameters or seconds."""

    name: str
    value: float
    low: float
    high: float
    price: float


def front(points: Sequence[Point], *, better: int) -> list[str]:
    """Returns who is on the Pareto front, cheapest first: nobody is as cheap and better, or as good and cheaper."""
    found = []
    for one in sorted(points, key=lambda point: (point.price, -better * point.value)):
        beaten = any(
            better * other.value >= better * one.value
            and other.price <= one.price
            and (other.value != one.value or other.price != one.price)
            for other in points
        )
        if not beaten:
            found.append(one.name)
    return found


def smallest(points: Sequence[Point], *, better: int, bar: float) -> str | None:
    """Returns the cheapest whose interval lies at or beyond the bar with its worse end; None where there is none."""
    for one in sorted(points, key=lambda point: (point.price, -better * point.value)):
        worse = one.low if better > 0 else one.high
        if better * worse >= better * bar:
            return one.name
    return None


def about(
    names: Sequence[str],
    values: Sequence[tuple[float, float, float]],
    prices: Sequence[float | None],
    *,
    price: str,
    better: int,
    bar: float | None,
) -> dict[str, Any] | None:
    """Returns front and smallest by one price for JSON; None where all systems that have one have the same."""
    points = [
        Point(name, *value, cost) for name, value, cost in zip(names, values, prices, strict=True) if cost is not None
    ]
    if len({point.price for point in points}) < 2:
        return None
    return {
        "price": price,
        "points": [point._asdict() for point in sorted(points, key=lambda point: point.price)],
        "front": front(points, better=better),
        "bar": bar,
        "smallest": None if bar is None else smallest(points, better=better, bar=bar),
    }
