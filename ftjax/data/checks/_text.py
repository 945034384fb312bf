"""What rules on texts share: showing one, hiding one, its words, and mending every text of a row."""

from collections.abc import Callable, Iterator
import re
from typing import Any

_WORD = re.compile(r"\w+")
_MOST = 60  # characters of a text in a message


def shown(text: str) -> str:
    """Returns a text for a message: quoted, on one line, cut after 60 characters."""
    return repr(text if len(text) <= _MOST else f"{text[: _MOST - 1]}…")


def masked(text: str) -> str:
    """Returns a private text with all but its ends hidden."""
    keep = min(4, len(text) // 4)
    return f"{text[:keep]}{'*' * min(len(text) - keep, 8)}"


def words(text: str) -> list[str]:
    """Returns the words of a text, in lower case."""
    return _WORD.findall(text.lower())


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Returns the value with every text in it changed; keys stay, and what does not change is the same object."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        made = {key: mapped(item, change) for key, item in value.items()}
        return made if any(made[key] is not item for key, item in value.items()) else value
    if isinstance(value, list):
        listed = [mapped(item, change) for item in value]
        return listed if any(a is not b for a, b in zip(listed, value, strict=True)) else value
    return value


def plural(count: int, what: str) -> str:
    """Returns "1 row", "2 rows"."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def every(value: Any) -> Iterator[str]:
    """Yields every text in a value; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from every(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from every(item)
