"""pattern: a regular expression matches."""

from collections.abc import Sequence
import re

from ftjax.errors import UserError


def check(*, pattern: str) -> None:
    """Raises where the pattern is none."""
    if not pattern:
        raise UserError("the reward 'pattern' has an empty pattern, which matches everything; give one")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"the reward 'pattern': {pattern!r} is no regular expression ({error})") from None


def score(*, completions: Sequence[str], pattern: str) -> list[float | None]:
    r"""Returns 1 where the pattern is found anywhere in the completion, else 0; `\A` and `\Z` bind it to the ends.

    Python's regular expressions, so some take exponential time on some completions: such a row is timed out.
    """
    return [float(re.search(pattern, text) is not None) for text in completions]


score.each = True  # type: ignore[attr-defined]
