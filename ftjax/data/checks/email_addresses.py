"""Mail addresses."""

from collections.abc import Iterator
import re

from ftjax.data import rows
from ftjax.data.checks import _personal

SEVERITY = "warning"
WHY = "A model repeats what it was trained on: the address may come out in an answer to anybody."
FIX = "Replace the address by one at example.com."
# At most 64 characters before the @ (RFC 5321), so that long text without spaces takes no longer than other text.
_ADDRESS = re.compile(r"[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}")
_RESERVED = re.compile(r"@(?:[\w-]+\.)*(?:example|test|invalid|localhost)(?:\.[a-z]+)?$", re.IGNORECASE)


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with an address, masked; names that are reserved for examples (RFC 2606) do not count."""
    return _personal.found(data, "mail address", lambda text: find(text) if "@" in text else ())


def find(text: str) -> Iterator[str]:
    """Yields the addresses of a text."""
    for match in _ADDRESS.finditer(text):
        if not _RESERVED.search(match[0]):
            yield match[0]
