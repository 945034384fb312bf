"""A file of questions -> the same rows with answers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ftjax.data import files, questions, records
from ftjax.errors import UserError

Ask = Callable[[list[list[records.Message]], int], list[str]]  # chats and a seed -> answers
Refuse = Callable[[list[records.Message]], None]  # raises a UserError for a chat that cannot be answered


def answer(
    ask: Ask, refuse: Refuse, start: Sequence[records.Message], source: Path, out: Path,
    *, column: str, batch_size: int, seed: int,
) -> int:  # fmt: skip
    """Writes each row of `source` with its answer in `column`, in order, and returns how many there are.

    `start` is said before every chat. `out` appears when all answers are there; a row that cannot be answered or
    written is refused, by its place, before the first is asked.
    """
    asked = questions.read(source)
    if any(column in one.row for one in asked):
        raise UserError(f"{source} has a column {column!r} already; name another one with --column")
    for one in asked:
        files.line(one.row, one.where)
        try:
            refuse([*start, *one.messages])
        except UserError as bad:
            raise UserError(f"{one.where}: {bad}") from None

    def answered() -> Iterator[dict[str, Any]]:
        for first in range(0, len(asked), batch_size):
            group = asked[first : first + batch_size]
            filled = group + [group[-1]] * (min(batch_size, len(asked)) - len(group))
            answers = ask([[*start, *one.messages] for one in filled], seed + first)
            for one, text in zip(group, answers, strict=False):
                yield {**one.row, column: text}

    files.write_rows(out, answered())
    return len(asked)
