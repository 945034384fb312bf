"""exact: the completion is the answer."""

from collections.abc import Sequence
from typing import Any

from ftjax.verify import answers


def score(
    *, completions: Sequence[str], answer: Sequence[Any] | None = None, reference: Sequence[Any] | None = None
) -> list[float | None]:
    """Returns 1 where the completion is the answer, or one of a list of them, but for case and what is around it.

    The answer is the column `answer`, or where a row has none, `reference`; without either the row has no score.
    """
    absent = [None] * len(completions)
    wanted = [
        second if first is None else first for first, second in zip(answer or absent, reference or absent, strict=True)
    ]
    return [
        None if one is None else float(answers.equal(text, one)) for text, one in zip(completions, wanted, strict=True)
    ]


score.one_of = ("answer", "reference")  # type: ignore[attr-defined]
