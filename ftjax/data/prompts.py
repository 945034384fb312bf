"""Prompts to sample completions of: every row that has one, whether or not it holds an answer as well.

A prompt is the column `prompt` (text, or messages), `question` (a user's turn), the turns of a chat before its last
answer, or what chosen and rejected of a preference have in common. All columns of the row go on to the reward, with
the chat's own last answer as `reference` and the prompt as messages as `prompt_messages`.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import batch as arrays
from ftjax.data import encode, preferences, prompt_forms, records, template, tokenizer

TRUNCATION = ("drop", "truncate", "error")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt as tokens, and the row that it came from."""

    ids: np.ndarray  # int32 [n]
    text: str  # of the last user's turn, or the whole of a text
    row: Mapping[str, Any]
    where: str
    number: int  # among all prompts of a run


class PromptBatch(NamedTuple):
    """Arrays [P, T] of prompts at the right end of their row; int32. Their completions follow in the same row."""

    tokens: np.ndarray
    segments: np.ndarray  # 1 where there is a token, 0 before
    numbers: np.ndarray  # [P], of the prompt among all of the run
    text: Any = None  # rows of ordinary text that are learned beside (PPO-ptx)


class Report(NamedTuple):
    """What became of the rows."""

    rows: int
    kept: int
    dropped: int
    truncated: int
    left_out: dict[str, str]  # by "file:line", why; not in `as_dict`

    def as_dict(self) -> dict[str, Any]:
        """Returns the counts by name."""
        return {name: count for name, count in self._asdict().items() if name != "left_out"}

    def as_text(self) -> str:
        """Returns the report as it is printed."""
        return f"{self.kept:,} of {self.rows:,} prompts ({self.dropped:,} too long, {self.truncated:,} cut)"


def read(
    path: str | Path,
    tok: tokenizer.Tokenizer,
    *,
    made: template.Template | None,
    max_length: int,
    truncation: str,
    numbers: Iterator[int],
) -> tuple[list[Prompt], Report]:
    """Returns the prompts of a file in its order, numbered by `numbers`, and what became of its rows.

    One of more than `max_length` tokens is left out ("drop"), loses its beginning but for a BOS ("truncate"), or is a
    UserError ("error").
    """
    if truncation not in TRUNCATION:
        raise errors.UserError(f"truncation={truncation!r}; known: {', '.join(TRUNCATION)}")
    found = [from_row(row, where) for where, row in records.source(str(path)).read(str(path))]
    kept, truncated = [], 0
    left_out: dict[str, str] = {}
    for asked, columns, where in found:
        ids = _ids(asked, tok, made, where)
        if len(ids) > max_length:
            if truncation == "error":
                raise errors.UserError(
                    f"{where}: a prompt of {len(ids)} tokens, but max_length is {max_length}; raise it or shorten the "
                    "prompt"
                )
            if truncation == "drop":
                left_out[where] = f"longer than {max_length} tokens"
                continue
            truncated += 1
            head = int(tok.bos_id is not None and ids[0] == tok.bos_id)
            ids = np.concatenate([ids[:head], ids[len(ids) - (max_length - head) :]])
        text = asked if isinstance(asked, str) else next((m.content for m in reversed(asked) if m.role == "user"), "")
        kept.append(Prompt(ids, text, columns, where, next(numbers)))
    if not kept:
        raise errors.UserError(
            f"{path}: none of {len(found)} prompts has at most {max_length} tokens; raise config.data.max_length"
        )
    return kept, Report(len(found), len(kept), len(left_out), truncated, left_out)


def from_row(row: Mapping[str, Any], where: str) -> tuple[str | prompt_forms.Turns, dict[str, Any], str]:
    """Returns the prompt of a row, its columns for the reward, and where it stands; raises UserError without one."""
    known = {key: value for key, value in row.items() if value is not None}
    columns: dict[str, Any] = dict(known)
    if {"chosen", "rejected"} <= known.keys():  # in the form that training on the preference would read it in
        asked: str | prompt_forms.Turns | None = preferences.from_row(known, where).prompt
    else:
        asked, _ = prompt_forms.context(known, where, alone="chosen" in known)
    if asked is None and "question" in known:
        asked = (records.Message("user", records.text(known["question"], "question", where)),)
    if asked is None:
        raise errors.UserError(
            f"{where}: no prompt; give a column prompt (text or messages), question, or messages (has: "
            f"{', '.join(known) or 'nothing'})"
        )
    if not isinstance(asked, str):
        if asked and asked[-1].role == "assistant":
            columns.setdefault("reference", asked[-1].content)
            asked = asked[:-1]
        if not any(message.role != "system" for message in asked):
            raise errors.UserError(f"{where}: no turn of a user to answer; give one, or remove the row")
        columns["prompt_messages"] = [{"role": m.role, "content": m.content} for m in asked]
    elif not asked.strip():
        raise errors.UserError(f"{where}: 'prompt' is empty; fill it or remove the row")
    return asked, columns, where


def _ids(
    asked: str | prompt_forms.Turns, tok: tokenizer.Tokenizer, made: template.Template | None, where: str
) -> np.ndarray:
    if not isinstance(asked, str) and made is not None:
        return np.asarray(encode.prompt_ids(asked, tok, made=made, tools=()), np.int32)
    if not isinstance(asked, str):
        raise errors.UserError(f"{where}: a chat, but the model has no chat template; name one in config.data.template")
    start = [] if tok.bos_id is None else [tok.bos_id]
    return np.asarray(start + tok.encode(asked).ids, np.int32)


def collate(rows: Sequence[Sequence[Prompt]], *, length: int) -> PromptBatch:
    """Returns the batch with one prompt a row, at its right end; an empty list is a row of padding of number -1."""
    shape = (len(rows), length)
    made = PromptBatch(np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.full(len(rows), -1, np.int32))
    for b, members in enumerate(rows):
        for one in members:
            made.tokens[b, length - len(one.ids) :] = one.ids
            made.segments[b, length - len(one.ids) :] = 1
            made.numbers[b] = one.number
    return made


PROMPTS = arrays.Collator(size=lambda one: len(one.ids), collate=collate)
