"""Files in which some rows have a system prompt and others none."""

from collections.abc import Iterator

from ftjax.data import records, rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model cannot know whether to behave so without the prompt; at inference one of the two forms is unseen."
FIX = "Give every row the system prompt that inference will use, or none."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields the rows of the smaller group, with and without a system prompt; only chats count."""
    chats = [
        sample
        for row, sample in zip(data.readable, data.samples, strict=True)
        if not isinstance(row.record, (records.Text, records.Completion))
    ]
    having = [sample for sample in chats if sample.system.strip()]
    lacking = [sample for sample in chats if not sample.system.strip()]
    if not having or not lacking:
        return
    if len(lacking) <= len(having):
        for sample in lacking:
            yield rows.Found(sample.line, f"no system prompt; {_text.plural(len(having), 'other row')} have one")
    else:
        for sample in having:
            which = _text.shown(sample.system)
            yield rows.Found(sample.line, f"system prompt {which}; {_text.plural(len(lacking), 'other row')} have none")
