"""Text that was decoded with the wrong encoding: 'cafÃ©' for 'café'."""

from collections.abc import Iterator
import re
from typing import Any

from ftjax.data import rows
from ftjax.data.checks import _text

SEVERITY = "warning"
WHY = "The model learns to write the broken characters."
FIX = "Read the source with its own encoding; --fix mends what ftfy is sure of."
_CLEAN = re.compile(r"[\x00-\x7f]*")  # most texts, which need no second look
_LOST = "\ufffd"


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with such text (ftfy's heuristic), and with characters that were lost for good (U+FFFD)."""
    for row in data.readable:
        text = next((text for text in _text.every(row.value) if _broken(text)), None)
        if text is not None:
            at = max(text.find(_LOST), next((n for n, c in enumerate(text) if c > "\x7f"), 0))
            what = "a lost character" if _LOST in text else "text in the wrong encoding"
            yield rows.Found(row.line, f"{what}: {_text.shown(text[max(at - 20, 0) : at + 30])}")


def repair(value: Any) -> Any:
    """Returns the row with its text decoded as it was meant."""
    import ftfy

    return _text.mapped(value, lambda text: ftfy.fix_encoding(text) if _broken(text) else text)


def _broken(text: str) -> bool:
    if _CLEAN.fullmatch(text):
        return False
    from ftfy import badness

    return _LOST in text or badness.is_bad(text)
