"""Telephone numbers."""

from collections.abc import Iterator
import re

from ftjax.data import rows
from ftjax.data.checks import _personal

SEVERITY = "warning"
WHY = "A model repeats what it was trained on: the number may come out in an answer to anybody."
FIX = "Replace the number by a reserved one, such as 555-0100."
# What may be one: seven digits or more, separated as numbers of telephones are. The library looks only at these texts.
_MAYBE = re.compile(r"\+\d[\d\s().-]{6,}\d|\(\d{2,4}\)\s?\d{3}|\b\d{3}[-. ]\d{3}[-. ]\d{4}\b")
_FICTIONAL = re.compile(r"555\D?01\d\d")


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with a valid number, masked: international ones, and national ones of North America."""
    return _personal.found(data, "telephone number", find)


def find(text: str) -> Iterator[str]:
    """Yields the numbers of a text."""
    if not _MAYBE.search(text):
        return
    import phonenumbers

    grouped = phonenumbers.Leniency.STRICT_GROUPING
    for match in phonenumbers.PhoneNumberMatcher(text, "US", leniency=grouped):
        if _MAYBE.search(match.raw_string) and not _FICTIONAL.search(match.raw_string):
            yield match.raw_string
