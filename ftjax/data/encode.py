"""Records -> examples: token ids and which of them are trained on. The only place that decides which tokens count.

Rules, for every row: exactly one BOS where the tokenizer has one (the template's, or ours); what is trained ends in a
stop token; the first token is never trained (nothing predicts it); a row without a trained token is an error; nothing
is cut or left out without being counted in the report.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
import hashlib
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import cache, chat, draft, files, records, report, template, tokenizer
from ftjax.data.sources import world

TRAIN_ON = ("assistant", "last_assistant", "all")
TRUNCATION = ("drop", "truncate", "error")
FORMAT = 2  # of the encoding rules and of what a cache holds: a change must change this, so that caches are rebuilt
_BATCH = 1024  # rows tokenised in one call


class Example(NamedTuple):
    """One row: ids int32 [T], mask uint8 [T] (1: this token is trained on), and "file:line"."""

    ids: np.ndarray
    mask: np.ndarray
    where: str


def encode_file(
    data: str | Path | Sequence[records.Record],
    tok: tokenizer.Tokenizer,
    *,
    template_name: str | None,
    max_length: int | None,
    truncation: str,
    train_on: str,
) -> tuple[list[Example], report.EncodeReport]:
    """Returns the examples of a data file (or of records) and a report, from the disk cache when nothing has changed.

    The cache lies under a hash of data, template, tokenizer, settings and format version; see `cache`.
    """
    check_settings(max_length=max_length, truncation=truncation, train_on=train_on)
    made = template.load(template_name, tok) if template_name is not None or tok.chat_template else None
    if isinstance(data, str) and world.accepts(data):
        data = records.read(str(data))  # made, not stored: its rows are what tells one from another
    key = cache_key(data, tok, made, settings=[max_length, truncation, train_on], form=FORMAT)
    known = cache.read(key, ("ids", "mask", "offsets"))
    if known is not None:
        arrays, about = known
        bounds = itertools.pairwise(arrays["offsets"].tolist())
        found = [
            Example(arrays["ids"][a:b], arrays["mask"][a:b], where)
            for (a, b), where in zip(bounds, about["wheres"], strict=True)
        ]
        return found, report.cached(about["summary"], about["left_out"])
    rows = records.read(str(data)) if isinstance(data, (str, Path)) else data
    examples, told = encode_records(
        rows, tok, made=made, max_length=max_length, truncation=truncation, train_on=train_on
    )
    cache.write(
        key,
        arrays={
            "ids": np.concatenate([example.ids for example in examples]),
            "mask": np.concatenate([example.mask for example in examples]),
            "offsets": np.cumsum([0, *(len(example.ids) for example in examples)]),
        },
        about={
            "wheres": [example.where for example in examples],
            "summary": told.as_dict(),
            "left_out": told.left_out,
        },
    )
    return examples, told


def cache_key(
    data: Any, tok: tokenizer.Tokenizer, made: template.Template | None, *, settings: list[Any], form: Any
) -> str:  # fmt: skip
    """Returns the key of encoded data: all that its tokens depend on. `form` is the version of the rules."""
    return cache.key(
        data=identity(data),
        template=[made.text, made.bos_token, made.eos_token] if made else None,
        tokenizer=tok.fingerprint,
        settings=settings,
        format=form,
    )


def encode_records(
    rows: Sequence[records.Record],
    tok: tokenizer.Tokenizer,
    *,
    made: template.Template | None,
    max_length: int | None,
    truncation: str,
    train_on: str,
) -> tuple[list[Example], report.EncodeReport]:
    """Returns the examples of records, in order, and what was cut or left out; raises a UserError when none is left."""
    check_settings(max_length=max_length, truncation=truncation, train_on=train_on)
    drafter = draft.Drafter(tok, made, train_on=train_on)
    counts = report.Counts(max_length=max_length)
    kept: list[Example] = []
    for example, source in encoded(rows, drafter, tok):
        counts.see(len(example.ids), rewritten=source.rewritten, holds_special=source.holds_special)
        if max_length is not None and len(example.ids) > max_length:
            if truncation == "error":
                raise errors.UserError(
                    f"{example.where}: {len(example.ids)} tokens, but max_length is {max_length}; raise it, or set "
                    "truncation to 'drop' or 'truncate'"
                )
            if truncation == "drop":
                counts.dropped += 1
                counts.left_out[example.where] = f"longer than {max_length} tokens"
                continue
            example = Example(example.ids[:max_length], example.mask[:max_length], example.where)
            if not example.mask.any():
                counts.emptied += 1
                counts.left_out[example.where] = f"its answer begins behind {max_length} tokens"
                continue
            counts.truncated += 1
        counts.keep(example.mask)
        kept.append(example)
    if not kept:
        limit = f" within max_length {max_length}" if rows else ""
        raise errors.UserError(
            f"{rows[0].where.rpartition(':')[0] if rows else 'the data'}: none of {len(rows)} rows is left{limit} "
            f"({counts.dropped} too long, {counts.emptied} cut before their answer); raise max_length"
        )
    return kept, counts.done()


def encode(
    record: records.Record, tok: tokenizer.Tokenizer, *, made: template.Template | None, train_on: str
) -> Example:
    """Returns the example of one record, at its full length."""
    drafter = draft.Drafter(tok, made, train_on=train_on)
    return next(encoded([record], drafter, tok))[0]


def prompt_ids(
    messages: Sequence[records.Message],
    tok: tokenizer.Tokenizer,
    *,
    made: template.Template,
    tools: Sequence[dict[str, object]],
) -> list[int]:
    """Returns the tokens that ask for the next answer of a chat: those that a training row has before the answer."""
    asked = records.Conversation(messages=tuple(messages), tools=tuple(tools), where="prompt", extra={})
    return _with_bos(tok.encode(chat.prompt(made, asked)).ids, tok, "prompt")


def check_settings(*, max_length: int | None, truncation: str, train_on: str) -> None:
    """Raises a UserError for a setting that does not exist or makes no sense."""
    for name, value, known in (("truncation", truncation, TRUNCATION), ("train_on", train_on, TRAIN_ON)):
        if value not in known:
            raise errors.UserError(
                f"{name}={value!r}{files.close_to(str(value), list(known))}; known: {', '.join(known)}"
            )
    if max_length is not None and max_length < 2:
        raise errors.UserError(f"max_length={max_length} must be at least 2: one token to read and one to predict")


def encoded(
    rows: Sequence[records.Record], drafter: draft.Drafter, tok: tokenizer.Tokenizer
) -> Iterator[tuple[Example, draft.Draft]]:
    """Yields the example of each record at its full length, and the pieces of text that it was made of."""
    for found in attempts(rows, drafter, tok):
        if isinstance(found, errors.UserError):
            raise found
        yield found


def attempts(
    rows: Sequence[records.Record], drafter: draft.Drafter, tok: tokenizer.Tokenizer
) -> Iterator[tuple[Example, draft.Draft] | errors.UserError]:
    """Yields what `encoded` yields, and in the place of a row that cannot be encoded why.

    A thread tokenises a batch, which lets other threads run, while the next one is drafted.
    """
    with futures.ThreadPoolExecutor(1) as beside:
        waiting: deque[tuple[list[Any], futures.Future[Any]]] = deque()
        for first in range(0, len(rows), _BATCH):
            drafts = [_attempted(drafter, record) for record in rows[first : first + _BATCH]]
            waiting.append((drafts, beside.submit(_tokenised, drafts, tok)))
            if len(waiting) > 1:
                yield from _examples(*waiting.popleft(), drafter, tok)
        while waiting:
            yield from _examples(*waiting.popleft(), drafter, tok)


def _tokenised(drafts: Sequence[Any], tok: tokenizer.Tokenizer) -> tuple[list[Any], list[Any]]:
    """Returns the encodings of the first pieces of drafts, and of all others, one after another."""
    whole = [one for one in drafts if isinstance(one, draft.Draft)]
    heads = tok.encode_batch([one.pieces[0].text for one in whole])
    return heads, tok.continue_batch([piece.text for one in whole for piece in one.pieces[1:]])


def _examples(
    drafts: Sequence[Any], tokenised: futures.Future[Any], drafter: draft.Drafter, tok: tokenizer.Tokenizer
) -> Iterator[tuple[Example, draft.Draft] | errors.UserError]:
    """Yields the examples of a batch of drafts, or why there is none."""
    heads, tails = map(iter, tokenised.result())
    for one in drafts:
        if isinstance(one, errors.UserError):
            yield one
            continue
        encodings = [next(heads), *itertools.islice(tails, len(one.pieces) - 1)]
        try:
            example = _example(one, encodings, drafter.stops, tok)
        except errors.UserError as refusal:
            yield refusal
        else:
            yield example, one


def _attempted(drafter: draft.Drafter, record: records.Record) -> draft.Draft | errors.UserError:
    try:
        return drafter(record)
    except errors.UserError as refusal:
        return refusal


def _example(
    one: draft.Draft, encodings: Iterable[tokenizer.Encoding], stops: frozenset[int], tok: tokenizer.Tokenizer
) -> Example:
    ids: list[int] = []
    mask: list[int] = []
    for piece, encoding in zip(one.pieces, encodings, strict=True):
        trained = len(encoding.ids) if piece.trained else 0
        # A token counts by where it starts: one that ends later has only taken in white space after a stop token.
        while trained and encoding.offsets[trained - 1][0] >= piece.trained:
            trained -= 1
        ids += encoding.ids
        mask += [1] * trained + [0] * (len(encoding.ids) - trained)
    if one.add_eos:
        if tok.eos_id is None:
            raise errors.UserError(
                f"{one.where}: the tokenizer has no end token to close the answer with; set eos_token"
            )
        ids.append(tok.eos_id)
        mask.append(1)
    whole = _with_bos(ids, tok, one.where)
    mask = [0] * (len(whole) - len(ids)) + mask
    mask[0] = 0
    last = len(mask) - 1
    while last >= 0 and not mask[last]:
        last -= 1
    if last < 0:
        raise errors.UserError(f"{one.where}: the row has no token to train on; remove it")
    while last and not tok.decode([whole[last]], skip_special=False).strip():
        last -= 1  # train_on="all" trains the white space after the last stop token too
    if whole[last] not in stops:
        raise errors.UserError(
            f"{one.where}: the answer ends in {tok.token(whole[last])!r}, which is no stop token; "
            "the tokenizer does not read the end of turn as one token, use another template"
        )
    return Example(np.array(whole, np.int32), np.array(mask, np.uint8), one.where)


def _with_bos(ids: list[int], tok: tokenizer.Tokenizer, where: str) -> list[int]:
    if tok.bos_id is None:
        return ids
    if ids[:2] == [tok.bos_id, tok.bos_id]:
        raise errors.UserError(
            f"{where}: the row begins with {tok.bos_token!r} twice; take one out of text or template"
        )
    return ids if ids[:1] == [tok.bos_id] else [tok.bos_id, *ids]


def identity(data: str | Path | Sequence[object]) -> object:
    """Returns what tells the data from any other: path and digest of a file, or a digest of records."""
    if isinstance(data, (str, Path)):
        return [str(data), files.digest(data)]
    total = hashlib.sha256()
    for row in data:
        total.update(repr(row).encode("utf-8", "backslashreplace"))
    return total.hexdigest()
