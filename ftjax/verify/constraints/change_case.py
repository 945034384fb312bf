"""change_case: capitals and small letters."""

from ftjax.verify import language, words


def capital_word_frequency(text: str, *, capital_frequency: float, capital_relation: str) -> bool:
    """Returns whether the text has so many words all in capitals."""
    return words.compare(words.capitals(text), capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    """Returns whether the text is English without small letters."""
    return text.isupper() and language.may_be(text, "en")


def english_lowercase(text: str) -> bool:
    """Returns whether the text is English without capitals."""
    return text.islower() and language.may_be(text, "en")
