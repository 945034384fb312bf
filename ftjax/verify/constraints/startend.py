"""startend: how the text begins and ends."""


def end_checker(text: str, *, end_phrase: str) -> bool:
    """Returns whether the text ends with a phrase, but for case, white space and double quotes around it."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    """Returns whether the whole text stands in double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'
