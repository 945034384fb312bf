"""Characters that print nothing: control characters, byte-order marks, marks of text direction."""

from collections.abc import Iterator
import re
from typing import Any
import unicodedata

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "They cost tokens, hide in what people see, and the model learns to write them."
FIX = "Remove them; --fix does."
# C0 but for tab and newlines, DEL, C1, BOM and word joiner, overrides of direction. Zero-width joiners build emoji.
_BAD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u2060\ufeff\u202a-\u202e\u2066-\u2069]")


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with such a character, with its number and how many there are."""
    for row in data.readable:
        found = [match[0] for text in _text.every(row.value) for match in _BAD.finditer(text)]
        if found:
            name = unicodedata.name(found[0], "control character")
            yield rows.Found(row.line, f"U+{ord(found[0]):04X} ({name.lower()}), {len(found)} such characters")


def repair(value: Any) -> Any:
    """Returns the row without them."""
    return _text.mapped(value, lambda text: _BAD.sub("", text) if _BAD.search(text) else text)
