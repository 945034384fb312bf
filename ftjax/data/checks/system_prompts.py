"""Files in which some rows have a system prompt and others none, or nearly the one that most have."""

from collections import Counter
from collections.abc import Iterator
import difflib

from ftjax.data import records, rows
from ftjax.data.checks import _text

SEVERITY = "warning"
_LEAST, _SHARE, _ALIKE = 10, 0.1, 0.9  # rows of the usual prompt; the other has at most a tenth, and is as like as this
_MOST, _CHARACTERS = (
    50,
    1000,
)  # prompts that are compared (where there are more, they are made for their rows), and of each
WHY = "The model cannot know whether to behave so without the prompt; at inference one of the two forms is unseen."
FIX = "Give every row the system prompt that inference will use, or none."


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields the rows of the smaller group, with and without a system prompt, and those of a variant of the usual one.

    Only chats count.
    """
    chats = [
        sample
        for row, sample in zip(data.readable, data.samples, strict=True)
        if not isinstance(row.record, (records.Text, records.Completion))
    ]
    having = [sample for sample in chats if sample.system.strip()]
    lacking = [sample for sample in chats if not sample.system.strip()]
    yield from _variants(having)
    if not having or not lacking:
        return
    if len(lacking) <= len(having):
        for sample in lacking:
            yield rows.Found(sample.line, f"no system prompt; {_text.plural(len(having), 'other row')} have one")
    else:
        for sample in having:
            which = _text.shown(sample.system)
            yield rows.Found(sample.line, f"system prompt {which}; {_text.plural(len(lacking), 'other row')} have none")


def _variants(having: list[rows.Sample]) -> Iterator[rows.Found]:
    """Yields rows whose system prompt differs in little from one that ten times as many rows have."""
    counted = Counter(sample.system for sample in having)
    if not 1 < len(counted) <= _MOST:
        return
    usual = [text for text, count in counted.most_common() if count >= _LEAST]
    like: dict[str, str] = {}
    for text, count in counted.items():
        for other in usual:
            if count <= _SHARE * counted[other] and _ratio(text, other) >= _ALIKE:
                like[text] = other
                break
    for sample in having:
        if sample.system in like:
            others = _text.plural(counted[like[sample.system]], "other row")
            which = _text.shown(_apart(like[sample.system], sample.system))
            yield rows.Found(sample.line, f"nearly the system prompt of {others}, but for {which}")


def _ratio(first: str, second: str) -> float:
    made = difflib.SequenceMatcher(None, first[:_CHARACTERS], second[:_CHARACTERS], autojunk=False)
    return made.ratio() if made.real_quick_ratio() >= _ALIKE and made.quick_ratio() >= _ALIKE else 0.0


def _apart(usual: str, other: str) -> str:
    """Returns what the second text has in the place of the first one's, from the first word that differs."""
    a, b = usual.split(), other.split()
    at = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return " ".join(b[at : at + 6]) or "its end"
