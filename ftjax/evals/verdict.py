"""What a comparison came to, in words: a difference whose interval holds 0 is undecided, whatever its size."""

import math

from ftjax.evals import statistics


def in_words(found: statistics.Difference, *, a: str, b: str) -> str:
    """Returns a sentence that says which of two systems has more, and by how much, or that it is undecided."""
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.2g}"
    few = f"; only {found.of} items, and fewer than {statistics.FEW} are rough" if found.of < statistics.FEW else ""
    if found.low <= 0 <= found.high:
        known = math.isfinite(found.low) and math.isfinite(found.high)
        ends = f"{found.low:.3g} to {found.high:.3g}" if known else "unknown"
        return f"undecided: {b} - {a} is {found.value:.3g} ({ends}; {p}){few}"
    low, high = sorted((abs(found.low), abs(found.high)))
    word = "higher" if found.low > 0 else "lower"
    return f"{b} is {word} than {a} by {abs(found.value):.3g} ({low:.3g} to {high:.3g}; {p}){few}"
