"""punctuation: what must not be used."""


def no_comma(text: str) -> bool:
    """Returns whether the text has no comma."""
    return "," not in text
