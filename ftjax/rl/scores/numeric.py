"""numeric: the completion ends on the number of the answer, as in GSM8K."""

from collections.abc import Sequence
from typing import Any

from ftjax.verify import answers


def score(*, completions: Sequence[str], answer: Sequence[Any]) -> list[float | None]:
    """Returns 1 where the completion ends on the answer's number, else 0 (`answers.number` says what that is).

    The answer is a number, or a text that ends on one, such as a whole solution of GSM8K.
    """
    return [
        None if wanted is None else float(answers.same_number(text, wanted))
        for text, wanted in zip(completions, answer, strict=True)
    ]
