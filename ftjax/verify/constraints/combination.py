"""combination: what the text as a whole is made of."""

from ftjax.verify import words


def two_responses(text: str) -> bool:
    """Returns whether the text is two different responses with six asterisks between them."""
    found = words.parts(text, "******")
    return all(found) and len(found) == 2 and found[0] != found[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """Returns whether the text begins with the request, but for case and white space around it."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())
