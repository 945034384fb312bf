"""Small plots as SVG text for pages without scripts: histograms and a map of points; and files of several panels."""

from collections.abc import Mapping, Sequence
import html

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
