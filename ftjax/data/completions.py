"""Files of completions to be scored: every row that `preferences` reads, and rows with one answer.

What a row says of which completion is better does not matter here: `ranks`, `label` and the like may be missing or be
anything. The last answer of a chat is its completion, what comes before it the prompt.
"""

from collections.abc import Mapping
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

from ftjax import errors
from ftjax.data import preferences, records
from ftjax.data.preferences import Preference
from ftjax.data.sources import csv_file

_OPINIONS = ("ranks", "scores", "margin", *preferences.LABELS, *itertools.chain(*preferences.SCORES))
_SEVERAL = ("completions", "chosen", "rejected", *preferences.OUTPUTS, *preferences.BEHAVIOUR)


class Answered(NamedTuple):
    """A row with its completions, each as a preference of its own without pairs or label."""

    completions: tuple[Preference, ...]
    several: bool  # by the form of the row, so that rows of one form get scores of one form
    row: Mapping[str, Any]
    where: str


def read(path: str | Path) -> list[Answered]:
    """Returns the rows of a data file; a UserError names file and line of one without a completion."""
    typed = preferences.typed if csv_file.accepts(str(path)) else lambda row: row
    found = [from_row(typed(row), where)._replace(row=row) for where, row in records.source(str(path)).read(str(path))]
    if not found:
        raise errors.UserError(f"{path} holds no row; give a file with `prompt` and `completion`, or `messages`")
    return found


def from_row(row: Mapping[str, Any], where: str) -> Answered:
    """Returns the completions of a row; `where` ("file:line") begins every error message."""
    known = {key: value for key, value in row.items() if value is not None and key not in _OPINIONS}
    if "completions" in known:
        given = records.unpacked(known["completions"], "completions", where)
        known["ranks"] = [1] * len(given) if isinstance(given, list | tuple) else []
    elif not any(key in known for key in _SEVERAL) and not isinstance(known.get("output"), list | tuple):
        known["label"] = True
    found = preferences.from_row(known, where)
    alone = [
        dataclasses.replace(found, completions=(one,), pairs=(), margins=(), labels=(math.nan,))  # type: ignore[arg-type]
        for one in found.completions
    ]
    return Answered(tuple(alone), len(alone) > 1 or "completions" in known, row, where)
