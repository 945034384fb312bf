"""A mended copy of a data file, with what the rules of `checks/` are certain of and nothing else."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ftjax import errors
from ftjax.data import check, files, rows

_ENDINGS = (".gz", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


class Repaired(NamedTuple):
    """The rows of the copy, how many rows each rule changed or removed, and lines that no row could be read from."""

    values: list[Any]
    changes: dict[str, int]
    unread: list[int]
    stopped: str | None  # why the file could not be read to its end: then there is no copy

    def told(self, place: Path | None) -> str:
        """Returns what was done, for the console."""
        if self.stopped is not None:
            return f"no copy written, which would lack all that stands behind this: {self.stopped}; mend it by hand"
        if not self.changes:
            return "nothing to fix: no rule is certain of a repair"
        made = ", ".join(f"{name} {count:,}" for name, count in self.changes.items())
        lost = f"; lines left out, because no row can be read from them: {errors.some([*map(str, self.unread)], 8)}"
        return f"written: {place} ({len(self.values):,} rows; rows changed: {made}{lost if self.unread else ''})"


def beside(path: str) -> Path:
    """Returns where the copy of a file goes: `chats.csv.gz` -> `chats.fixed.jsonl`."""
    if path.startswith("world:"):
        raise errors.UserError(f"{path}: rows of the made world are not in a file; there is nothing to fix")
    place = Path(path)
    name = place.name
    while name.endswith(_ENDINGS):
        name = name[: name.rindex(".")]
    return place.with_name(f"{name}.fixed.jsonl")


def repaired(data: rows.DataFile) -> Repaired:
    """Returns the rows of a file as the rules mend them, in order."""
    known = check.rules()
    menders = [rule for rule in known if hasattr(rule.module, "repair")]
    changes: Counter[str] = Counter()
    unread, values, lines = [], [], []
    for row in data.rows:
        value, refusal = row.value, row.refusal
        if isinstance(refusal, files.BadRow):
            if refusal.last:
                return Repaired([], {}, [], str(refusal))
            unread.append(row.line)
            continue
        for rule in menders:
            mended = rule.module.repair(value)
            if mended is not value:
                changes[rule.name] += 1
                value = mended
        values.append(value)
        lines.append(row.line)
    copy = str(beside(data.path))  # whose values are no cells of a CSV any more
    for rule in known:
        if hasattr(rule.module, "removes"):
            gone = set(rule.module.removes(rows.of_values(copy, list(zip(lines, values, strict=True)))))
            changes[rule.name] += len(gone)
            kept = [n for n, line in enumerate(lines) if line not in gone]
            values, lines = [values[n] for n in kept], [lines[n] for n in kept]
    return Repaired(values, {name: count for name, count in changes.items() if count}, unread, None)
