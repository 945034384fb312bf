"""Text that may be shown: private data in it masked, and nothing in it that moves a cursor."""

from ftjax.data.checks import _text, email_addresses, payment_cards, phone_numbers, secrets

_RULES = (secrets, payment_cards, email_addresses, phone_numbers)


def printable(text: str) -> str:
    """Returns a text on one line, in which nothing is a control character or no UTF-8."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def hidden(text: str) -> str:
    """Returns a text in which what the rules on private data find is masked."""
    for rule in _RULES:
        for found in {*rule.find(text)}:
            text = text.replace(found, _text.masked(found))
    return text
