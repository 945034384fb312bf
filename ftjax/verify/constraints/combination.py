"""combination: what the text as a whole is made of."""


def two_responses(text: str) -> bool:
    """Returns whether the text is two different responses with six asterisks between them."""
    first, *inner = (part.strip() for part in text.split("******"))
    last = inner.pop() if inner else ""
    found = [part for part in (first, *inner, last) if part]
    return all(inner) and len(found) == 2 and found[0] != found[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """Returns whether the text begins with the request, but for case and white space around it."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())
