"""language: which one the text is in."""

from ftjax.verify import language as languages


def response_language(text: str, *, language: str) -> bool:
    """Returns whether the text is in the language of an ISO 639-1 code, or holds nothing to tell it by."""
    return languages.may_be(text, language)
