"""Parts of the held-out rows: by task, by length of prompt and answer in thirds, by what the prompts are about."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Int
import numpy as np

from ftjax.compare.systems import Key, Rows
from ftjax.data import topics

LEAST = 5  # rows of a part
CLUSTERS = 6  # the largest ones


class Slice(NamedTuple):
    """Some of the rows, by their places among the keys."""

    by: str
    name: str
    places: Int[np.ndarray, " n"]


def find(rows: Rows, keys: Sequence[Key]) -> list[Slice]:
    """Returns the parts of these rows; a way to cut them that leaves one part is left out, and so are small parts."""
    chosen = [rows[key] for key in keys]
    found = []
    if any(row.task for row in chosen):
        found += _by("task", [row.task or "none" for row in chosen])
    found += _thirds("length of the prompt", [len(row.prompt) for row in chosen])
    if all(row.reference for row in chosen):
        found += _thirds("length of the reference", [len(row.reference or "") for row in chosen])
    return found + _clusters([row.prompt for row in chosen])


def _by(what: str, labels: Sequence[str]) -> list[Slice]:
    groups: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(label, []).append(place)
    return _several(what, groups)


def _several(what: str, groups: Mapping[str, Sequence[int]]) -> list[Slice]:
    large = [Slice(what, label, np.array(places)) for label, places in groups.items() if len(places) >= LEAST]
    return large if len(groups) > 1 else []


def _thirds(what: str, lengths: Sequence[int]) -> list[Slice]:
    """Returns up to three parts of about the same size; rows of one length are in one part."""
    values = np.array(lengths)
    ends = np.unique(np.quantile(values, (1 / 3, 2 / 3), method="lower"))
    part = np.searchsorted(ends, values)
    groups = {}
    for number in np.unique(part):
        places = np.flatnonzero(part == number)
        shortest, longest = int(values[places].min()), int(values[places].max())
        span = f"{shortest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
        groups[f"{span} characters"] = places.tolist()
    return _several(what, groups)


def _clusters(prompts: Sequence[str]) -> list[Slice]:
    found = topics.find(prompts, None)
    if found is None:
        return []
    names = [f"{rank + 1}: {name}" if name else f"{rank + 1}" for rank, name in enumerate(found.names)]
    groups = {name: np.flatnonzero(found.cluster == rank).tolist() for rank, name in enumerate(names)}
    parts = _several("words of the prompt", groups)[:CLUSTERS]
    return [one._replace(places=found.looked_at[one.places]) for one in parts]
