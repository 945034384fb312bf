"""detectable_format: how the text is laid out."""

import json
import re

_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCES = ("```json", "```Json", "```JSON", "```")


def number_bullet_lists(text: str, *, num_bullets: float) -> bool:
    """Returns whether the text has exactly so many bullet points: lines that begin with `*` (not `**`) or `-`."""
    stars = re.findall(r"^[^\S\n]*\*[^*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^[^\S\n]*-", text, re.MULTILINE)) == num_bullets


def constrained_response(text: str) -> bool:
    """Returns whether one of "My answer is yes.", "My answer is no.", "My answer is maybe." is in the text."""
    return any(option in text for option in _OPTIONS)


def number_highlighted_sections(text: str, *, num_highlights: float) -> bool:
    """Returns whether the text has at least so many parts *in asterisks* or **in double ones**, each within a line."""
    single = re.findall(r"\*[^\n*]*\*", text)
    double = re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(bool(part.strip("*").strip()) for part in single + double) >= num_highlights


def multiple_sections(text: str, *, section_spliter: str, num_sections: float) -> bool:
    """Returns whether the text has at least so many sections, each begun by a word and a number (`Section 1`)."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def json_format(text: str) -> bool:
    """Returns whether the text is JSON as Python reads it, which is more than JSON (NaN), fenced or not."""
    text = text.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """Returns whether a line of the text has a title in <<double angular brackets>>."""
    return any(map(_has_title, text.split("\n")))


def _has_title(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    return 0 <= start < end - 2 and bool(line[start : end + 2].lstrip("<").rstrip(">").strip())
