"""detectable_content: parts of a text that can be found by how they are written."""

import re


def number_placeholders(text: str, *, num_placeholders: float) -> bool:
    """Returns whether the text has at least so many placeholders in square brackets, each within a line."""
    return sum(map(_bracketed, text.split("\n"))) >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    """Returns whether the text has a postscript: its marker, in upper or lower case, anywhere.

    `P.S.` and `P.P.S` may have a blank after each period.
    """
    marker = postscript_marker.strip()
    spaced = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    return re.search(spaced.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _bracketed(line: str) -> int:
    r"""Returns the matches of `\[.*?\]` in a line; the regular expression takes quadratic time on `[[[[`."""
    count, at = 0, line.find("[")
    while at >= 0 and (end := line.find("]", at)) >= 0:
        count, at = count + 1, line.find("[", end)
    return count
