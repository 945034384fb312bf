"""How many tokens the rows of a file have under a tokenizer and its template, row by row, refusals included."""

from collections.abc import Callable, Sequence
import dataclasses
import json
from pathlib import Path

import numpy as np

from ftjax import errors
from ftjax.data import candidates, draft, encode, preferences, records, template, tokenizer

# Names under which a config.json says how many positions the model was trained for.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")


@dataclasses.dataclass(frozen=True)
class TokenCounts:
    """Of each row that training takes: all tokens, those before the first that is trained on, and why there are none.

    A row of preferences has the tokens of its prompt and its longest completion.
    """

    total: np.ndarray  # int64 [rows], 0 where the row is refused
    before: np.ndarray  # int64 [rows]
    special: np.ndarray  # bool [rows]: its text holds the writing of a special token
    refusals: dict[int, errors.UserError]  # by row
    template: template.Template | None


def count(
    rows: Sequence[records.Record | preferences.Preference],
    tok: tokenizer.Tokenizer,
    *,
    template_name: str | None,
    progress: Callable[[int, int], None],
) -> TokenCounts:
    """Returns the counts of rows, each encoded as training does it; `progress` gets how many of how many are done."""
    made = template.load(template_name, tok) if template_name is not None or tok.chat_template else None
    drafter = draft.Drafter(tok, made, train_on="assistant")
    owners: list[int] = []
    parts: list[records.Record] = []
    for n, row in enumerate(rows):
        own = [row] if not isinstance(row, preferences.Preference) else candidates.records_of(row)
        owners += [n] * len(own)
        parts += own
    total, before = np.zeros((2, len(rows)), np.int64)
    special = np.zeros(len(rows), bool)
    refusals: dict[int, errors.UserError] = {}
    for n, found in zip(owners, encode.attempts(parts, drafter, tok), strict=True):
        progress(n + 1, len(rows))
        if isinstance(found, errors.UserError):
            refusals.setdefault(n, found)
            continue
        example, source = found
        special[n] |= source.holds_special
        total[n] = max(total[n], len(example.ids))
        before[n] = max(before[n], int(example.mask.argmax()))
    for n in refusals:
        total[n] = before[n] = 0
    return TokenCounts(total, before, special, refusals, made)


def context(model: str) -> int | None:
    """Returns the positions that a model folder's config.json gives it, or None where it says nothing."""
    file = Path(model) / "config.json"
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise errors.UserError(f"{file}: no JSON; copy the model folder again") from None
    found = next((said[name] for name in _CONTEXT if isinstance(said.get(name), int)), None)
    return found if found and found > 0 else None
