"""Is this the answer: a text as it stands, or the number at its end."""

from decimal import Decimal
import numbers
import re
from typing import Any
import unicodedata

from ftjax.errors import UserError

_OUTER = " \t\r\n.,;:!?\"'`“”‘’"
# A sign counts where nothing stands before it that it could subtract from; `x2` and `H2O` hold no number, `是72` does.
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_])(?<![0-9]\.)"
    r"(?P<sign>(?<![\w)\]%])[-−])?(?:[$€£¥]\s?)?(?P<inner>(?<=[$€£¥])[-−])?"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+|(?<!\.)(?=\.[0-9]))(?P<rest>\.[0-9]+)?"
    r"(?P<power>[eE][-+]?[0-9]{1,9}(?![0-9A-Za-z]))?"
)
_MARK = "####"  # what GSM8K writes before the final answer


def normalised(text: str) -> str:
    """Returns a text in NFKC, case folded, white space as single blanks, without punctuation and quotes around it.

    A text of nothing else keeps its punctuation: "?" is no empty answer.
    """
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.strip(_OUTER) or plain


def equal(text: str, answer: Any) -> bool:
    """Returns whether a text is an answer, or one of a list of answers, but for what `normalised` takes away."""
    answers = answer if isinstance(answer, list | tuple) else [answer]
    return normalised(text) in {normalised(str(one)) for one in answers}


def number(text: str) -> Decimal | None:
    """Returns the number that a text ends on, None where it has none.

    That is the first one after the last `####`, where there is this mark of GSM8K, else the last one of the text.
    Thousands separators, $ and % are passed over: 50% is 50. A fraction `1/2` is two numbers.
    """
    _, mark, after = text.rpartition(_MARK)
    found = None
    for one in _NUMBER.finditer(after):
        found = one
        if mark:
            break
    return None if found is None else _decimal(found)


def same_number(text: str, answer: Any) -> bool:
    """Returns whether a text ends on the number of an answer, which is a number, or a text that ends on one.

    They are compared as decimals, so 0.1 is 0.10. Raises UserError where the answer has no number.
    """
    wanted = number(answer) if isinstance(answer, str) else None
    if isinstance(answer, numbers.Real | Decimal) and not isinstance(answer, bool):
        wanted = Decimal(str(answer))
    if wanted is None or not wanted.is_finite():
        raise UserError(f"the answer {answer!r:.80} has no number; give a number, or a text that ends on one")
    return number(text) == wanted


def _decimal(found: re.Match[str]) -> Decimal:
    sign = "-" if found["sign"] or found["inner"] else ""
    return Decimal(f"{sign}{found['digits'].replace(',', '') or '0'}{found['rest'] or ''}{found['power'] or ''}")
