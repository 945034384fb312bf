"""What is measured of rows: which numbers a set has, their names, which side is better, and one value a row."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from ftjax.compare.systems import HELD_OUT, PARTS, Key, Rows
from ftjax.evals import paired

Values = Float[np.ndarray, " n"]


class Known(NamedTuple):
    """A number of a row: what it is called, and whether more (1) or less (-1) of it is better."""

    label: str
    better: int


KNOWN = {  # in the order of their weight: the first that a set has is what the verdict is about
    "score": Known("score of the answers", 1),
    "reward": Known("reward of the answers", 1),
    "accuracy": Known("pairs in the right order", 1),
    "exact_match": Known("exact match", 1),
    "acc": Known("right choices", 1),
    "acc_norm": Known("right choices, by length", 1),
    "prompt_level_strict_acc": Known("prompts with every instruction kept", 1),
    "inst_level_strict_acc": Known("instructions kept", 1),
    "prompt_level_loose_acc": Known("prompts with every instruction kept, read loosely", 1),
    "inst_level_loose_acc": Known("instructions kept, read loosely", 1),
    "nats": Known("loss", -1),
    "loss": Known("loss", -1),
    "margin": Known("margin", 1),
}
COSTS = ("tokens", "answer_tokens", "seconds")  # of a row: shown with the costs, not tested
COUNTS = {  # what a sum or a mean of a row counts by, where the row says it
    "nats": "tokens",
    "loss": "weight",
    "inst_level_strict_acc": PARTS,
    "inst_level_loose_acc": PARTS,
}
RIGHT, BY_TOKEN, BY_ROW = "right answers", "nats a token", "nats a row"


@dataclasses.dataclass(frozen=True)
class Measure:
    """One metric of one set over the rows that have it in every system."""

    set: str
    field: str
    label: str
    unit: str  # "%" for shares, "nats a token", "nats a row" or nothing
    better: int
    keys: tuple[Key, ...]
    shared: int  # rows that all systems have, with this number or without
    prompts: paired.Clusters  # which rows share a prompt
    values: Mapping[str, Values]  # by system, in the order of the keys

    @property
    def share(self) -> bool:
        """Tells whether a row is right (1) or wrong (0) in every system."""
        return self.unit == "%"


def of_set(name: str, sets: Mapping[str, Rows], keys: Sequence[Key]) -> list[Measure]:
    """Returns the metrics of a set that all systems which have the set have, most important first.

    `sets` has the rows of each system, `keys` those that they share; a row without a number somewhere, or with one
    that is not finite, is left out of that metric for all.
    """
    fields = set.intersection(*({field for key in keys for field in rows[key].numbers} for rows in sets.values()))
    order = [field for field in KNOWN if field in fields] + sorted(fields - {*KNOWN, *COSTS, *COUNTS.values()})
    found = []
    for field in order:
        measure = _measure(name, field, sets, keys)
        if measure is not None:
            found.append(measure)
    return found


def _measure(name: str, field: str, sets: Mapping[str, Rows], keys: Sequence[Key]) -> Measure | None:
    has = lambda key, part: all(part in rows[key].numbers for rows in sets.values())
    whole = [key for key in keys if has(key, field)]
    counted = COUNTS.get(field)
    if counted is not None and not all(has(key, counted) for key in whole):
        if field == "nats":
            return None
        counted = None
    if not whole:
        return None
    known = KNOWN.get(field, Known(field, 0))
    values = {one: _column(rows, whole, field) for one, rows in sets.items()}
    label, unit = known.label, ""
    if counted is not None:
        counts = [_column(rows, whole, counted) for rows in sets.values()]
        same = all(np.array_equal(counts[0], other) for other in counts) and bool(counts[0].sum())
        sums = values if field == "nats" else {one: value * counts[0] for one, value in values.items()}
        values = {one: paired.of_sums(value, counts[0]) for one, value in sums.items()} if same else values
        unit = "" if field != "nats" else BY_TOKEN if same else BY_ROW
    elif all(paired.is_share(column) for column in values.values()):
        label, unit = RIGHT if field == "score" else label, "%"
    first = next(iter(sets.values()))
    prompts = paired.of_prompts(first[key].prompt for key in whole)
    return Measure(name, field, label, unit, known.better, tuple(whole), len(keys), prompts, values)


def lacking(name: str, sets: Mapping[str, Rows], keys: Sequence[Key]) -> list[str]:
    """Returns sentences on numbers that one system lacks (or has as NaN) on rows where another has them."""
    said = []
    fields = dict.fromkeys(field for rows in sets.values() for key in keys for field in rows[key].numbers)
    for field in (field for field in (*KNOWN, *sorted(fields.keys() - {*KNOWN})) if field in fields):
        if field in (*COSTS, *COUNTS.values()):
            continue
        have = {one: {key for key in keys if field in rows[key].numbers} for one, rows in sets.items()}
        some, every = set.union(*have.values()), set.intersection(*have.values())
        short = [f"{one} has none on {len(some - own):,}" for one, own in have.items() if some - own]
        if short:
            rest = f"only the {len(every):,} that all have are compared" if every else "it is not compared"
            label = KNOWN[field].label if field in KNOWN else field
            said.append(f"{label} on {name}: of {len(some):,} rows {', '.join(short)}, so {rest}")
    return said


def _column(rows: Rows, keys: Sequence[Key], field: str) -> Values:
    return np.array([rows[key].numbers[field] for key in keys], np.float64)


def mean_of(rows: Rows, field: str) -> float | None:
    """Returns the mean of a number over the rows that have it; None where none has."""
    values = [row.numbers[field] for row in rows.values() if field in row.numbers]
    return float(np.mean(values)) if values else None


def main(found: Sequence[Measure]) -> Measure:
    """Returns the metric that the verdict is about: the first one of the held-out rows with a better side."""
    return next((one for one in found if one.set == HELD_OUT and one.better), found[0])
