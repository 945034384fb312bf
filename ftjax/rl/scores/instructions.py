"""instructions: the completion keeps instructions that a program can check, those of IFEval."""

from collections.abc import Sequence
from typing import Any, Literal

from ftjax.verify import instructions


def score(
    *,
    completions: Sequence[str],
    instruction_id_list: Sequence[Any],
    kwargs: Sequence[Any],
    reading: Literal["strict", "loose"],
    credit: Literal["share", "all"],
) -> list[float | None]:
    """Returns the share of a row's instructions that its completion keeps, or 1 where it keeps all and else 0.

    The columns are those of IFEval's data: names of instructions, and the arguments of each. The strict reading takes
    the completion as it is; the loose one also without its first or last line and without asterisks.
    """
    read = instructions.READINGS[reading]
    return [
        _credit(read(text, names, arguments), credit) if names else None
        for text, names, arguments in zip(completions, instruction_id_list, kwargs, strict=True)
    ]


def _credit(kept: list[bool], credit: str) -> float:
    return float(all(kept)) if credit == "all" else sum(kept) / len(kept)
