"""Preferences -> candidates: the tokens of a prompt once, and of each completion that may follow it.

Each completion is encoded behind its prompt as `encode` does with a training row, so it has the tokens that generation
gives: one BOS, no token across the cut, a stop token at the end. The prompt's tokens are the same for all completions
of a row, which is checked. Only tokens that the assistant writes count.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ftjax import errors
from ftjax.data import cache, draft, encode, files, preference_report, preferences, records, template, tokenizer
from ftjax.data.preferences import Preference
from ftjax.data.sources import world

PREFIXES = ("shared", "repeated")
EQUAL = ("drop", "error")
FORMAT = 1  # of the rules of this module, beside encode.FORMAT: a change must change it, so that caches are rebuilt
_ARRAYS = ("ids", "mask", "offsets", "completions", "labels", "pairs", "margins", "pair_counts", "partners")


class Candidates(NamedTuple):
    """A prompt and what may follow it; `pairs` (better, worse) are indices into `completions`.

    `mismatched` holds completions of another row, as many as there are completions, where they are asked for: KTO
    estimates the KL from them. `reference` holds log-probabilities of all completions (the mismatched last) under the
    reference policy, where they have been computed.
    """

    prompt: np.ndarray  # int32 [n]
    completions: tuple[np.ndarray, ...]  # int32; each ends in a stop token
    masks: tuple[np.ndarray, ...]  # uint8, 1: this token counts
    pairs: tuple[tuple[int, int], ...]
    margins: tuple[float, ...]  # one a pair
    labels: tuple[float, ...]  # one a completion, NaN: none
    where: str
    mismatched: tuple[np.ndarray, ...] = ()
    mismatched_masks: tuple[np.ndarray, ...] = ()
    reference: tuple[float, ...] = ()

    def branches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields tokens and mask of every completion, the mismatched ones last."""
        yield from zip(self.completions, self.masks, strict=True)
        yield from zip(self.mismatched, self.mismatched_masks, strict=True)

    def size(self, prefix: str) -> int:
        """Returns the tokens of the row in a batch: with the prompt "shared", or "repeated" for each completion."""
        lengths = [len(ids) for ids, _ in self.branches()]
        check_prefix(prefix)
        if prefix == "repeated":
            return len(lengths) * len(self.prompt) + sum(lengths)
        return len(self.prompt) - 1 + sum(1 + length for length in lengths)


def encode_preferences_file(
    data: str | Path | Sequence[Preference],
    tok: tokenizer.Tokenizer,
    *,
    template_name: str | None,
    max_length: int | None,
    truncation: str,
    equal: str,
    mismatched: bool,
) -> tuple[list[Candidates], preference_report.PreferenceReport]:
    """Returns the candidates of a file (or of preferences) and a report, from the disk cache when nothing has changed.

    The cache lies under a hash of data, template, tokenizer, settings and format versions; see `cache`.
    """
    check_settings(max_length=max_length, truncation=truncation, equal=equal)
    made = template.load(template_name, tok) if template_name is not None or tok.chat_template else None
    if isinstance(data, str) and world.accepts(data):
        data = preferences.read(data)  # made, not stored: its rows are what tells one from another
    settings = ["preferences", max_length, truncation, equal, mismatched]
    key = encode.cache_key(data, tok, made, settings=settings, form=[encode.FORMAT, FORMAT])
    known = cache.read(key, _ARRAYS)
    if known is not None:
        arrays, about = known
        return _from_arrays(arrays, about["wheres"]), preference_report.cached(about["summary"], about["left_out"])
    rows = preferences.read(str(data)) if isinstance(data, (str, Path)) else data
    found, partners, told = _encode(
        rows, tok, made=made, max_length=max_length, truncation=truncation, equal=equal, mismatched=mismatched
    )
    about = {"wheres": [one.where for one in found], "summary": told.as_dict(), "left_out": told.left_out}
    cache.write(key, arrays=_as_arrays(found, partners), about=about)
    return found, told


def encode_preferences(
    rows: Sequence[Preference],
    tok: tokenizer.Tokenizer,
    *,
    made: template.Template | None,
    max_length: int | None,
    truncation: str,
    equal: str,
    mismatched: bool,
) -> tuple[list[Candidates], preference_report.PreferenceReport]:
    """Returns the candidates of preferences, in order, and what was cut or left out.

    `truncation` "truncate" cuts the prompt from the left, but for its BOS, until it and the longest completion have
    `max_length` tokens; a completion is never cut, a row in which one does not fit is left out. "drop" leaves out the
    longer rows, "error" raises. `equal` "drop" leaves out pairs that differ in white space alone, and rows without any
    other pair; "error" raises. `mismatched` adds to each row as many completions of the next row (the last one takes
    the first) that has another prompt and fits; under "truncate" the prompt is cut for them too.
    Raises a UserError when no row is left.
    """
    check_settings(max_length=max_length, truncation=truncation, equal=equal)
    found, _, told = _encode(
        rows, tok, made=made, max_length=max_length, truncation=truncation, equal=equal, mismatched=mismatched
    )
    return found, told


def check_settings(*, max_length: int | None, truncation: str, equal: str) -> None:
    """Raises a UserError for a setting that does not exist or makes no sense."""
    encode.check_settings(max_length=max_length, truncation=truncation, train_on="assistant")
    if equal not in EQUAL:
        raise errors.UserError(f"equal={equal!r}{files.close_to(equal, list(EQUAL))}; known: {', '.join(EQUAL)}")


def check_prefix(prefix: str) -> None:
    """Raises a UserError for a layout of the prompt that does not exist."""
    if prefix not in PREFIXES:
        raise errors.UserError(
            f"prefix={prefix!r}{files.close_to(prefix, list(PREFIXES))}; known: {', '.join(PREFIXES)}"
        )


def _encode(
    rows: Sequence[Preference],
    tok: tokenizer.Tokenizer,
    *,
    made: template.Template | None,
    max_length: int | None,
    truncation: str,
    equal: str,
    mismatched: bool,
) -> tuple[list[Candidates], np.ndarray, preference_report.PreferenceReport]:
    counts = preference_report.Counts(max_length=max_length, rows=len(rows))
    different = [row for row in (_without_equal(row, equal, counts) for row in rows) if row is not None]
    kept: list[Candidates] = []
    in_full: list[int] = []  # tokens of the prompts of kept rows
    for one in _encoded(different, tok, made, counts):
        counts.see(len(one.prompt), [len(ids) for ids in one.completions], list(one.pairs))
        fitted = _fitted(one, max_length, truncation, tok, counts)
        if fitted is not None:
            kept.append(fitted)
            in_full.append(len(one.prompt))
    if not kept:
        file = rows[0].where.rpartition(":")[0] if rows else "the data"
        raise errors.UserError(
            f"{file}: none of {len(rows)} rows is left ({counts.equal} with equal completions, {counts.tied} with all "
            f"ranks tied, {counts.dropped + counts.emptied} longer than max_length {max_length}); mend the rows or "
            "raise max_length"
        )
    partners = np.full(len(kept), -1, np.int64)
    if mismatched:
        partners = _partners(kept, max_length, truncation, tok)
        kept = [cut(one, _most(kept[n]), max_length, tok) for one, n in zip(kept, partners, strict=True)]
        kept = [_with_partner(one, kept[n]) for one, n in zip(kept, partners, strict=True)]
    for one, length in zip(kept, in_full, strict=True):
        counts.truncated += len(one.prompt) < length
        counts.keep(one.prompt, one.masks, one.labels)
    pairs, completions = sum(len(one.pairs) for one in kept), sum(len(one.completions) for one in kept)
    return kept, partners, counts.done(pairs, completions)


def _without_equal(row: Preference, equal: str, counts: preference_report.Counts) -> Preference | None:
    """Returns the row without its pairs that differ in white space alone, or None where no other pair is left."""
    if not row.pairs:
        if len(row.completions) < 2:
            return row  # a label or a score of one completion
        counts.tied += 1
        counts.left_out[row.where] = "all ranks are tied"
        return None
    bare = [_bare(completion) for completion in row.completions]
    different = [n for n, (better, worse) in enumerate(row.pairs) if bare[better] != bare[worse]]
    if len(different) == len(row.pairs):
        return row
    if equal == "error":
        better, worse = next(pair for n, pair in enumerate(row.pairs) if n not in different)
        raise errors.UserError(
            f"{row.where}: completions {better + 1} and {worse + 1} are equal but for white space "
            f"({bare[better][:32]!r}); no one can be better: remove the row, or set equal to 'drop'"
        )
    counts.equal_pairs += len(row.pairs) - len(different)
    if not different:
        counts.equal += 1
        counts.left_out[row.where] = "its completions are equal but for white space"
        return None
    keep = lambda values: tuple(values[n] for n in different)
    return dataclasses.replace(row, pairs=keep(row.pairs), margins=keep(row.margins))


def _bare(completion: str | tuple[records.Message, ...]) -> str:
    if isinstance(completion, str):
        return "".join(completion.split())
    return "\n".join(
        f"{turn.role}:{''.join(turn.content.split())}{turn.reasoning_content or ''}{turn.tool_calls or ''}"
        for turn in completion
    )


def _encoded(
    rows: Sequence[Preference],
    tok: tokenizer.Tokenizer,
    made: template.Template | None,
    counts: preference_report.Counts,
) -> Iterator[Candidates]:
    """Yields the candidates of each row at their full length."""
    drafter = draft.Drafter(tok, made, train_on="assistant")
    found = encode.encoded([one for row in rows for one in records_of(row)], drafter, tok)
    for row in rows:
        prompts, completions, masks, special = [], [], [], False
        for example, source in itertools.islice(found, len(row.completions)):
            if not source.pieces[0].text and tok.bos_id is None:
                raise errors.UserError(
                    f"{row.where}: the prompt is empty, and the tokenizer has no BOS to begin with; give a prompt"
                )
            counted = np.flatnonzero(example.mask)
            start, end = int(counted[0]), int(counted[-1]) + 1
            prompts.append(example.ids[:start])
            completions.append(example.ids[start:end])
            masks.append(example.mask[start:end])
            special |= source.holds_special
            counts.rewritten += source.rewritten
            _refuse_bare_stop(completions, row, drafter.stops, tok)
        counts.special += special
        _refuse_other_prompt(prompts, row, tok, made)
        yield Candidates(
            prompt=prompts[0],
            completions=tuple(completions),
            masks=tuple(masks),
            pairs=row.pairs,
            margins=row.margins,
            labels=row.labels,
            where=row.where,
        )


def records_of(row: Preference) -> list[records.Record]:
    """Returns the prompt of a row with each of its completions, as rows of supervised training."""
    return [_record(row, one) for one in row.completions]


def _record(row: Preference, completion: str | tuple[records.Message, ...]) -> records.Record:
    if isinstance(completion, str):
        assert isinstance(row.prompt, str)
        return records.Completion(prompt=row.prompt, completion=completion, where=row.where, extra=row.extra)
    assert not isinstance(row.prompt, str)
    return records.Conversation(messages=row.prompt + completion, tools=row.tools, where=row.where, extra=row.extra)


def _refuse_bare_stop(
    completions: list[np.ndarray], row: Preference, stops: frozenset[int], tok: tokenizer.Tokenizer
) -> None:
    ids = completions[-1].tolist()
    if not tok.decode([i for i in ids if i not in stops], skip_special=False).strip():
        raise errors.UserError(
            f"{row.where}: completion {len(completions)} is nothing but the stop token "
            f"({tok.decode(ids, skip_special=False)!r}); fill it or remove the row"
        )


def _refuse_other_prompt(
    prompts: list[np.ndarray], row: Preference, tok: tokenizer.Tokenizer, made: template.Template | None
) -> None:
    first = prompts[0].tolist()
    for number, other in enumerate(prompts[1:], start=2):
        ids = other.tolist()
        if ids == first:
            continue
        at = next((n for n, (a, b) in enumerate(zip(first, ids, strict=False)) if a != b), min(len(first), len(ids)))
        shown = [repr(tok.token(one[at])) if at < len(one) else "nothing" for one in (first, ids)]
        raise errors.UserError(
            f"{row.where}: completion {number} has another prompt than completion 1: token {at + 1} is {shown[1]}, not "
            f"{shown[0]}; chat template {made.name if made else '(none)'} writes the prompt by what follows it: use "
            "another template"
        )


def _most(one: Candidates) -> int:
    return max(len(ids) for ids in one.completions)


def least(one: Candidates, tok: tokenizer.Tokenizer) -> int:
    """Returns the tokens of a prompt that must stay: its BOS and one more."""
    return min(len(one.prompt), 1 + (tok.bos_id is not None and one.prompt[0] == tok.bos_id))


def _fitted(
    one: Candidates, max_length: int | None, truncation: str, tok: tokenizer.Tokenizer, counts: preference_report.Counts
) -> Candidates | None:
    """Returns the row within max_length, or None where it is left out."""
    length = len(one.prompt) + _most(one)
    if max_length is None or length <= max_length:
        return one
    if truncation == "error":
        raise errors.UserError(
            f"{one.where}: prompt and longest completion have {length} tokens, but max_length is {max_length}; raise "
            "it, or set truncation to 'drop' or 'truncate'"
        )
    if truncation == "drop":
        counts.dropped += 1
        counts.left_out[one.where] = f"longer than {max_length} tokens"
        return None
    if least(one, tok) + _most(one) > max_length:
        counts.emptied += 1
        counts.left_out[one.where] = f"a completion alone is longer than {max_length} tokens"
        return None
    return cut(one, _most(one), max_length, tok)


def cut(one: Candidates, longest: int, max_length: int | None, tok: tokenizer.Tokenizer) -> Candidates:
    """Returns the row with its prompt cut from the left, but for its BOS, until `longest` more tokens fit."""
    if max_length is None or len(one.prompt) + longest <= max_length:
        return one
    head = least(one, tok) - 1
    tail = max_length - longest - head
    return one._replace(prompt=np.concatenate([one.prompt[:head], one.prompt[len(one.prompt) - tail :]]))


def _partners(
    kept: Sequence[Candidates], max_length: int | None, truncation: str, tok: tokenizer.Tokenizer
) -> np.ndarray:
    """Returns for each row the next one, cyclic, that has another prompt and whose completions fit behind its own."""
    prompts = [one.prompt.tobytes() for one in kept]
    found = np.zeros(len(kept), np.int64)
    for n, one in enumerate(kept):
        stays = least(one, tok) if truncation == "truncate" else len(one.prompt)
        room = np.inf if max_length is None else max_length - stays
        others = ((n + step) % len(kept) for step in range(1, len(kept)))
        partner = next((m for m in others if prompts[m] != prompts[n] and _most(kept[m]) <= room), None)
        if partner is None:
            raise errors.UserError(
                f"{one.where}: no other row has another prompt and completions that fit behind this one, which the KL "
                "estimate needs; give more rows, or raise max_length"
            )
        found[n] = partner
    return found


def _with_partner(one: Candidates, partner: Candidates) -> Candidates:
    taken = [k % len(partner.completions) for k in range(len(one.completions))]
    return one._replace(
        mismatched=tuple(partner.completions[k] for k in taken),
        mismatched_masks=tuple(partner.masks[k] for k in taken),
    )


def _as_arrays(found: Sequence[Candidates], partners: np.ndarray) -> dict[str, np.ndarray]:
    parts = [part for one in found for part in (one.prompt, *one.completions)]
    masks = [part for one in found for part in (np.zeros(len(one.prompt), np.uint8), *one.masks)]
    return {
        "ids": np.concatenate(parts).astype(np.int32),
        "mask": np.concatenate(masks).astype(np.uint8),
        "offsets": np.cumsum([0, *map(len, parts)]),
        "completions": np.array([len(one.completions) for one in found]),
        "labels": np.array([label for one in found for label in one.labels], np.float64),
        "pairs": np.array([pair for one in found for pair in one.pairs], np.int64).reshape(-1, 2),
        "margins": np.array([margin for one in found for margin in one.margins], np.float64),
        "pair_counts": np.array([len(one.pairs) for one in found]),
        "partners": partners,
    }


def _from_arrays(arrays: dict[str, np.ndarray], wheres: Sequence[str]) -> list[Candidates]:
    bounds = itertools.pairwise(arrays["offsets"].tolist())
    parts = ((arrays["ids"][a:b], arrays["mask"][a:b]) for a, b in bounds)
    labels, margins = iter(arrays["labels"].tolist()), iter(arrays["margins"].tolist())
    pairs = map(tuple, arrays["pairs"].tolist())
    found = []
    for count, pair_count, where in zip(
        arrays["completions"].tolist(), arrays["pair_counts"].tolist(), wheres, strict=True
    ):
        (prompt, _), *own = itertools.islice(parts, 1 + count)
        found.append(
            Candidates(
                prompt=prompt,
                completions=tuple(ids for ids, _ in own),
                masks=tuple(mask for _, mask in own),
                pairs=tuple(itertools.islice(pairs, pair_count)),
                margins=tuple(itertools.islice(margins, pair_count)),
                labels=tuple(itertools.islice(labels, count)),
                where=where,
            )
        )
    partners = arrays["partners"].tolist()
    return [one if n < 0 else _with_partner(one, found[n]) for one, n in zip(found, partners, strict=True)]
