"""One prompt with different answers."""

from collections import defaultdict
from collections.abc import Iterator

from ftjax.data import rows, similarity
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model learns a mixture of the answers; where only one is right, some rows teach the wrong one."
FIX = "Decide for one answer; keep several only where any will do."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields, at its first row, each opening of a chat that is answered in different ways."""
    if data.of_preferences:
        return
    groups: defaultdict[str, list[rows.Sample]] = defaultdict(list)
    for sample in data.samples:
        if sample.opening.strip():
            groups[similarity.normal(sample.opening)].append(sample)
    for members in groups.values():
        answers = {similarity.normal(sample.answers[0]) for sample in members}
        if len(answers) > 1:
            lines = ", ".join(str(sample.line) for sample in members[1:4]) + (", ..." if len(members) > 4 else "")
            asked = _text.shown(members[0].opening)
            what = f"{_text.plural(len(answers), 'answer')} to {asked} in {len(members)} rows (also {lines})"
            yield rows.Found(members[0].line, what)
