"""Placeholders of a template that were never filled: {{name}}, [Your Name], TODO."""

from collections.abc import Iterator
import re

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model learns to write the placeholder itself."
FIX = "Fill the placeholders, or remove the rows."
_WORD = (
    r"(?:your|my|the|insert|enter|add|fill)?[\s_]*(?:first|last|full|user|company|product|brand|customer|client)?[\s_]*"
    r"(?:name|author|company|product|date|address|email|phone(?: number)?|city|country|title|topic|recipient|sender|"
    r"position|job title|placeholder|signature)(?:[\s_]?here)?"
)
_PLACEHOLDER = re.compile(
    r"\{\{\s*[A-Za-z_][\w.\s]*\}\}|"  # {{name}}
    rf"\{{{_WORD}\}}|\[{_WORD}\]|<{_WORD}>|"  # {name} [Your Name] <company>
    r"\[(?:insert|your|enter|fill in)\b[^\].,!?\n]{0,30}\]|<(?:insert|your|enter)\b[^>.,!?\n]{0,30}>|"
    r"lorem ipsum dolor|\b(?:TODO|FIXME|TBD)\b(?=\s*[:.!]|\s*$)",
    re.IGNORECASE,
)


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with a placeholder in what is said or answered, with the first ones."""
    for sample in data.samples:
        found = [match[0] for text in (sample.context, *sample.answers) for match in _PLACEHOLDER.finditer(text)]
        if found:
            names = ", ".join(list(dict.fromkeys(found))[:3])
            place = "an answer" if any(_PLACEHOLDER.search(text) for text in sample.answers) else "the prompt"
            yield rows.Found(sample.line, f"{names} in {place}: {_text.shown(sample.answer)}")
