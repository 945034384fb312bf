"""Preferences of which the longer answer wins far more often than not."""

from collections.abc import Iterator
import math

from ftjax.data import rows

SEVERITY = "warning"
WHY = "Length is the easiest thing to learn, so the model learns to write more, or less, rather than better."
FIX = "Add pairs in which the other length wins, or train with a loss that is normalised by length."
_MOST = 0.6
_Z = 1.96  # of a 95 % interval


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields one finding where the whole interval lies above 0.6, or below 0.4."""
    longer, total = counted(data)
    if total:
        low, high = interval(longer, total)
        if low > _MOST or high < 1 - _MOST:
            which = "longer" if low > _MOST else "shorter"
            share = longer / total if which == "longer" else 1 - longer / total
            ends = (low, high) if which == "longer" else (1 - high, 1 - low)
            yield rows.Found(
                None,
                f"the {which} completion wins {share:.1%} of {total:,} pairs (95 %: {ends[0]:.1%} to {ends[1]:.1%})",
            )


def counted(data: rows.DataFile) -> tuple[int, int]:
    """Returns how often the longer completion wins, and how many pairs have two lengths in characters."""
    differing = [pair for pair in data.pairs if len(pair.better) != len(pair.worse)]
    return sum(len(pair.better) > len(pair.worse) for pair in differing), len(differing)


def interval(hits: int, total: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share."""
    share, z2 = hits / total, _Z**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return middle - half, middle + half
