"""length_constraints: how many words, sentences, paragraphs."""

from ftjax.errors import UserError
from ftjax.verify import words


def number_sentences(text: str, *, relation: str, num_sentences: float) -> bool:
    """Returns whether the text has so many sentences."""
    return words.compare(words.sentences(text), relation, num_sentences)


def number_words(text: str, *, relation: str, num_words: float) -> bool:
    """Returns whether the text has so many words."""
    return words.compare(words.words(text), relation, num_words)


def number_paragraphs(text: str, *, num_paragraphs: float) -> bool:
    """Returns whether the text has exactly so many paragraphs, with `***` between them, none empty."""
    found = words.parts(text, "***")
    return all(found) and len(found) == num_paragraphs


def nth_paragraph_first_word(text: str, *, num_paragraphs: float, nth_paragraph: float, first_word: str) -> bool:
    """Returns whether the text has exactly so many paragraphs, a blank line between, and the n-th begins with a word.

    As in the original, n counts empty paragraphs and their number does not; the word ends before . , ? ! and quotes.
    """
    if not 1 <= nth_paragraph <= num_paragraphs:
        raise UserError(f"nth_paragraph_first_word: nth_paragraph is {nth_paragraph}; give 1 to {num_paragraphs}")
    paragraphs = [part.strip() for part in text.split("\n\n")]
    count = sum(map(bool, paragraphs))
    if count != num_paragraphs or not paragraphs[int(nth_paragraph) - 1]:
        return False
    word = paragraphs[int(nth_paragraph) - 1].split()[0].lstrip("'").lstrip('"').lower()
    ends = [at for at, letter in enumerate(word) if letter in ".,?!'\""]
    return word[: ends[0] if ends else None] == first_word.lower()
