"""Small plots as SVG text for pages without scripts: histograms, a map of points, curves, intervals, points of two
quantities; and files of several panels. Labels of what stands on a page come escaped."""

from collections.abc import Mapping, Sequence
import html
import math

import numpy as np

# Of the clusters, largest first; those after them are grey. Distinguishable also without red or green (Okabe and Ito).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_GREY = "#9aa3ad"
_WIDTH, _HEIGHT, _BELOW = 480, 190, 26
_POINTS = 1500  # on a map
_BARS = 24  # of a histogram of numbers that are not whole
_STYLE = (  # of a file that stands alone; a page has its own
    "text{font:12px system-ui,sans-serif;fill:#5b6470}text.title{font-weight:bold;fill:#1c2024}"
    ".bar{fill:#4c7fb8}.axis{stroke:#dfe3e8}"
)
_ON_A_CURVE, _FEW = 300, 30  # points of a line; with so few each has a mark
_LEFT, _ROW = 52, 26  # room for the numbers of an axis; height of an interval
Curve = Sequence[tuple[float, float]]


def histogram(bins: Sequence[tuple[int, int, int]], *, limit: int | None) -> str:
    """Returns bars of (first, last, count), with the range below and a line at the limit where it is inside."""
    most = max(count for _, _, count in bins)
    left, right = bins[0][0], bins[-1][1] + 1
    scale = _WIDTH / (right - left)
    parts = []
    for first, last, count in bins:
        height = (_HEIGHT - 18) * count / most
        x, width = (first - left) * scale, (last + 1 - first) * scale
        parts.append(
            f'<rect class="bar" x="{x + 0.5:.1f}" y="{_HEIGHT - height:.1f}" width="{max(width - 1, 0.5):.1f}" '
            f'height="{height:.1f}"><title>{first:,} to {last:,}: {count:,} rows</title></rect>'
        )
    if limit is not None and left < limit < right:
        x = (limit - left) * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}" class="limit"/>')
    inside = "".join([*parts, _frame(f"{left:,}", f"{right - 1:,}", most)])
    return _svg(_WIDTH, _HEIGHT + _BELOW, "histogram", inside)


def _frame(left: str, right: str, most: int) -> str:
    """Returns the axis of a histogram, its two ends, and how high it is."""
    return (
        f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>'
        f'<text x="0" y="{_HEIGHT + 18}">{left}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 18}" text-anchor="end">{right}</text>'
        f'<text x="{_WIDTH}" y="12" text-anchor="end">highest bar: {most:,} rows</text>'
    )


def bars(values: np.ndarray) -> str:
    """Returns the bars of a histogram of the numbers that are finite, with the range below: what is inside an SVG."""
    finite = values[np.isfinite(values)]
    counts, edges = np.histogram(finite, bins=_BARS)
    most, wide = int(counts.max()), _WIDTH / _BARS
    parts = []
    for n, count in enumerate(counts.tolist()):
        height = (_HEIGHT - 18) * count / most
        parts.append(
            f'<rect class="bar" x="{n * wide + 0.5:.1f}" y="{_HEIGHT - height:.1f}" width="{wide - 1:.1f}" '
            f'height="{height:.1f}"><title>{edges[n]:.3g} to {edges[n + 1]:.3g}: {count:,} rows</title></rect>'
        )
    return "".join([*parts, _frame(f"{edges[0]:.3g}", f"{edges[-1]:.3g}", most)])


def numbers(values: np.ndarray) -> str:
    """Returns the histogram of the numbers that are finite, for a page."""
    return _svg(_WIDTH, _HEIGHT + _BELOW, "histogram", bars(values))


def panels(shown: Mapping[str, str]) -> str:
    """Returns an SVG file of panels by their titles, one below the other."""
    height = _HEIGHT + _BELOW + 34
    head = lambda title: f'<text class="title" y="-8">{html.escape(title)}</text>'
    inside = "".join(
        f'<g transform="translate(12 {n * height + 24})">{head(title)}{one}</g>'
        for n, (title, one) in enumerate(shown.items())
    )
    size = f'viewBox="0 0 {_WIDTH + 24} {height * len(shown)}" width="{_WIDTH + 24}" height="{height * len(shown)}"'
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><style>{_STYLE}</style>{paper}{inside}</svg>\n'


def scatter(place: np.ndarray, cluster: np.ndarray, labels: Sequence[str]) -> str:
    """Returns points [n, 2] in the colours of their clusters; `labels` (escaped already) show under the pointer."""
    low, high = place.min(axis=0), place.max(axis=0)
    shown = (place - low) / np.maximum(high - low, 1e-9)
    chosen = np.arange(len(place)) if len(place) <= _POINTS else np.linspace(0, len(place) - 1, _POINTS).astype(int)
    size = 420
    points = "".join(
        f'<circle cx="{8 + (size - 16) * shown[n, 0]:.1f}" cy="{8 + (size - 16) * (1 - shown[n, 1]):.1f}" r="3" '
        f'fill="{colour(int(cluster[n]))}" fill-opacity="0.65"><title>{labels[n]}</title></circle>'
        for n in chosen
    )
    return _svg(size, size, "map of the rows", points)


def curves(lines: Sequence[tuple[int, Curve]], *, across: str) -> str:
    """Returns lines, each in the colour of its rank; what is not finite is left out."""
    shown = [(rank, _thinned([point for point in line if math.isfinite(point[1])])) for rank, line in lines]
    points = [point for _, line in shown for point in line]
    if not points:
        return ""
    x, y = (_Axis(min(values), max(values)) for values in zip(*points, strict=True))
    parts = [_field(x, y, across)]
    for rank, line in shown:
        way = " ".join(f"{x.along(a):.1f},{y.up(b):.1f}" for a, b in line)
        parts.append(f'<polyline fill="none" stroke="{colour(rank)}" stroke-width="1.8" points="{way}"/>')
        parts += [
            f'<circle cx="{x.along(a):.1f}" cy="{y.up(b):.1f}" r="2.5" fill="{colour(rank)}">'
            f"<title>{a:g}: {b:.4g}</title></circle>"
            for a, b in (line if len(line) <= _FEW else ())
        ]
    return _svg(_WIDTH, _HEIGHT + 2 * _BELOW, "curves", "".join(parts))


def plane(points: Mapping[str, tuple[int, float, float, float, float]], *, across: str) -> str:
    """Returns a point for each label, (rank, x, y, low, high), in the colour of its rank and with an upright interval.

    Where x spans more than a factor of ten it runs in powers of ten, and 0 stands at the left edge.
    """
    wide = [point[1] for point in points.values()]
    tall = [end for point in points.values() for end in point[2:] if math.isfinite(end)]
    above = [one for one in wide if one > 0]
    log = min(wide) >= 0 and len(above) > 1 and max(above) > 10 * min(above)
    x = _Axis(min(above) / 10 if log and min(wide) == 0 else min(wide), max(wide), log=log)
    y = _Axis(min(tall), max(tall))
    parts = [_field(x, y, across, first="0" if min(wide) == 0 else "")]
    for name, (rank, at, value, low, high) in points.items():
        place = f"{x.along(max(at, x.low)):.1f}"
        low, high = (end if math.isfinite(end) else edge for end, edge in ((low, y.low), (high, y.high)))
        parts.append(
            f'<line x1="{place}" x2="{place}" y1="{y.up(low):.1f}" y2="{y.up(high):.1f}" stroke="{colour(rank)}" '
            f'stroke-width="2"/><circle cx="{place}" cy="{y.up(value):.1f}" r="5" fill="{colour(rank)}">'
            f"<title>{name}: {value:.4g} ({low:.4g} to {high:.4g})</title></circle>"
        )
    return _svg(_WIDTH, _HEIGHT + 2 * _BELOW, "points of two quantities", "".join(parts))


def intervals(found: Mapping[str, tuple[int, float, float, float]]) -> str:
    """Returns a line for each label, (rank, value, low, high), with 0 marked; the label stands above its line."""
    ends = [0.0, *(end for one in found.values() for end in one[1:] if math.isfinite(end))]
    x = _Axis(min(ends), max(ends))
    height = 2 * _ROW * len(found)
    zero = x.along(0.0)
    parts = [f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height}" stroke-dasharray="4 3"/>']
    for place, (name, (rank, value, low, high)) in enumerate(found.items()):
        y = 2 * _ROW * place + 1.4 * _ROW
        low, high = (end if math.isfinite(end) else edge for end, edge in ((low, x.low), (high, x.high)))
        parts.append(
            f'<text x="0" y="{y - 11:.1f}">{name}</text>'
            f'<line x1="{x.along(low):.1f}" x2="{x.along(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{colour(rank)}" stroke-width="3"/>'
            f'<circle cx="{x.along(value):.1f}" cy="{y:.1f}" r="5" fill="{colour(rank)}"/>'
        )
    for end, anchor in ((x.low, "start"), (x.high, "end")):
        if abs(x.along(end) - zero) > _LEFT:
            parts.append(f'<text x="{x.along(end):.1f}" y="{height + 16}" text-anchor="{anchor}">{end:.3g}</text>')
    parts.append(f'<text x="{zero:.1f}" y="{height + 16}" text-anchor="middle">0</text>')
    return _svg(_WIDTH, height + _BELOW, "intervals", "".join(parts))


class _Axis:
    """From a value to a place in the field; ends that are equal are moved apart."""

    def __init__(self, low: float, high: float, *, log: bool = False) -> None:
        self.log = log
        self.low, self.high = (low, high) if high > low else (low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10)

    def part(self, value: float) -> float:
        low, high, value = (math.log10(one) if self.log else one for one in (self.low, self.high, value))
        return (value - low) / (high - low)

    def along(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * self.part(value)

    def up(self, value: float) -> float:
        return 8 + (_HEIGHT - 8) * (1 - self.part(value))


def _field(x: _Axis, y: _Axis, across: str, *, first: str = "") -> str:
    """Returns the grid of a field with the numbers of both axes; `first` stands for the lowest x."""
    steps = [y.low + (y.high - y.low) * part for part in (0.0, 0.5, 1.0)]
    lines = "".join(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{y.up(one):.1f}" y2="{y.up(one):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y.up(one) + 4:.1f}" text-anchor="end">{one:.3g}</text>'
        for one in steps
    )
    below = "".join(
        f'<text x="{x.along(one):.1f}" y="{_HEIGHT + 18}" text-anchor="{anchor}">{text}</text>'
        for one, anchor, text in ((x.low, "start", first or _short(x.low)), (x.high, "end", _short(x.high)))
    )
    middle = (_LEFT + _WIDTH) / 2
    return f'{lines}{below}<text x="{middle}" y="{_HEIGHT + 36}" text-anchor="middle">{across}</text>'


def _short(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _thinned(line: Curve) -> Curve:
    """Returns at most so many points as a line needs, evenly spread, the last one among them."""
    if len(line) <= _ON_A_CURVE:
        return line
    return [line[n] for n in np.linspace(0, len(line) - 1, _ON_A_CURVE).astype(int)]


def dot(rank: int) -> str:
    """Returns the mark of a cluster for a table."""
    return (
        '<svg viewBox="0 0 12 12" style="width:12px;display:inline-block" aria-hidden="true">'
        f'<circle cx="6" cy="6" r="5" fill="{colour(rank)}"/></svg>'
    )


def colour(rank: int) -> str:
    """Returns the colour of a cluster by its rank."""
    return _COLOURS[rank] if rank < len(_COLOURS) else _GREY


def _svg(width: int, height: int, label: str, inside: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{inside}</svg>'
