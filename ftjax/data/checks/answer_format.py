"""Answers to one kind of prompt in two formats."""

from collections import defaultdict
from collections.abc import Callable, Iterator
import json
import re

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model learns to choose between the formats by chance."
FIX = "Bring the answers of the smaller group into the form of the others."
_LEAST, _SHARE = 10, 0.1  # rows of a kind; the smaller group is at most a tenth
_MARKDOWN = re.compile(r"^#{1,6} |\*\*\S|```|^\|.*\|$", re.MULTILINE)
_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)]) ", re.MULTILINE)
_DIGITS = re.compile(r"\d+")


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows whose answer has a format that at least nine in ten answers to such prompts do not have.

    A kind of prompt is a system prompt and the first two words that are asked.
    """
    kinds: defaultdict[tuple[str, str], list[rows.Sample]] = defaultdict(list)
    for sample in data.samples:
        if sample.asked and sample.answer.strip():
            kinds[sample.system, " ".join(_text.words(_DIGITS.sub("0", sample.asked[:200]))[:2])].append(sample)
    for (_, kind), members in kinds.items():
        if len(members) < _LEAST:
            continue
        for name, has in FORMATS.items():
            having = [has(sample.answer.strip()) for sample in members]
            share = sum(having) / len(members)
            if share in (0.0, 1.0) or _SHARE < share < 1 - _SHARE:
                continue
            odd, what = (True, "") if share <= _SHARE else (False, "not ")
            for sample, own in zip(members, having, strict=True):
                if own is odd:
                    verb = "are not" if odd else "are"
                    like = f"{_text.plural(having.count(not odd), 'other answer')} to {kind!r} {verb}"
                    yield rows.Found(sample.line, f"the answer is {what}{name}; {like}: {_text.shown(sample.answer)}")


def _is_json(answer: str) -> bool:
    if not answer.startswith(("{", "[")):
        return False
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return True


FORMATS: dict[str, Callable[[str], bool]] = {
    "JSON": _is_json,
    "Markdown": lambda answer: bool(_MARKDOWN.search(answer)),
    "a list": lambda answer: len(_ITEM.findall(answer)) > 1,
    "in lower case at the start": lambda answer: answer[0].islower(),
    "ended with punctuation": lambda answer: answer[-1] in ".!?…。！？)\"'”»`}]",
}
