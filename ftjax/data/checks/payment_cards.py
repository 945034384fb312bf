"""Numbers of payment cards and bank accounts, by their checksums."""

from collections.abc import Iterator
import re

from ftjax.data import rows
from ftjax.data.checks import _personal

SEVERITY = "warning"
WHY = "A model repeats what it was trained on: the number may come out in an answer to anybody."
FIX = "Replace the number by a test number of the card's network, or remove it."
_CARD = re.compile(r"(?<![\d.-])[3-6]\d{3}(?:([ -]?)\d{4}\1\d{4}\1\d{1,7}|[ -]?\d{6}[ -]?\d{5})(?![\d.]*\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_TEST = ("4111111111111111", "4242424242424242", "5555555555554444", "378282246310005")


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with a card number (Luhn) or an IBAN (ISO 7064), masked; networks' test numbers do not count."""
    return _personal.found(data, "payment number", find)


def find(text: str) -> Iterator[str]:
    """Yields the numbers of a text."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if 13 <= len(digits) <= 19 and _luhn(digits) and digits not in _TEST and len(set(digits)) > 3:
            yield match[0]
    for match in _IBAN.finditer(text):
        bare = match[0].replace(" ", "")
        if 15 <= len(bare) <= 34 and int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1:
            yield match[0]


def _luhn(digits: str) -> bool:
    doubled = [int(c) * (1 + n % 2) for n, c in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0
