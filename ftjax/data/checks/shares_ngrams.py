"""Rows that have a run of 13 words in common with an evaluation file."""

from collections import Counter
from collections.abc import Iterator

from ftjax.data import rows, similarity
from ftjax.data.checks import in_evaluation

SEVERITY = "warning"
NEEDS = ("against",)
WHY = "A passage of the evaluation was seen in training, so the score may be remembered in part."
FIX = "Look at the passage; remove the row where it gives the answer away."
_BOILERPLATE = 0.05  # a run in more than this share of the evaluation's rows is its form, not its content


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows that share a run, with the share of their runs; rows that are there whole are another rule's."""
    whole = in_evaluation.matched(data)
    for other in data.against:
        counted = Counter(run for text in other.texts for run in set(similarity.ngrams(text)))
        most = max(3.0, _BOILERPLATE * len(other.texts))
        rare = {run for run, count in counted.items() if count <= most}
        for n, text in enumerate(data.texts):
            runs = similarity.ngrams(text) if n not in whole else []
            shared = sum(run in rare for run in runs)
            if shared:
                share = f"{shared / len(runs):.0%} of its runs of {similarity.NGRAM} words"
                yield rows.Found(data.readable[n].line, f"{share} are in {other.path}")
