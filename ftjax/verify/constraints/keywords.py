"""keywords: what must or must not be said, in upper or lower case."""

from collections.abc import Sequence
import re

from ftjax.errors import UserError
from ftjax.verify import words


def existence(text: str, *, keywords: Sequence[str]) -> bool:
    """Returns whether each keyword is in the text, also within a word."""
    return all(re.search(re.escape(word), text, re.IGNORECASE) for word in keywords)


def frequency(text: str, *, keyword: str, frequency: float, relation: str) -> bool:
    """Returns whether a keyword is in the text so many times, also within words."""
    return words.compare(len(re.findall(re.escape(keyword.strip()), text, re.IGNORECASE)), relation, frequency)


def forbidden_words(text: str, *, forbidden_words: Sequence[str]) -> bool:
    """Returns whether none of the words is in the text as a word of its own."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(text: str, *, letter: str, let_frequency: float, let_relation: str) -> bool:
    """Returns whether a letter, or another character, is in the text so many times."""
    if len(letter) != 1:
        raise UserError(f"letter_frequency: the letter is {letter!r}; give one character")
    return words.compare(text.lower().count(letter.lower()), let_relation, let_frequency)
