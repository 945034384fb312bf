"""Files of which one topic is more than half."""

from collections.abc import Iterator

from ftjax.data import rows

SEVERITY = "warning"
WHY = "The other topics are learnt from the few rows that are left."
FIX = "Add rows on other topics, or take fewer of this one."
_MOST = 0.5


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields one finding where the largest cluster of prompts (TF-IDF, k-means) has more than half of the rows."""
    found = data.topics
    if found is not None and len(found.shares) > 1 and found.shares[0] > _MOST:
        yield rows.Found(None, f"{found.shares[0]:.0%} of the rows are about {found.names[0]!r}")
