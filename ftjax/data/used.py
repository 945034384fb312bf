"""Which rows a run read and what became of each: a table in its folder, so that runs can be asked who used a row.

The table is ROWS: for every row the first 8 bytes of its hash (`versions.row_hash`), sorted, with file, line and use.
Two of a million rows have the same 8 bytes with probability 3e-8.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple
import zipfile
import zlib

import numpy as np

from ftjax import errors
from ftjax.data import files, rows, versions
from ftjax.data.checks import _hidden, _text

ROWS, FACTS = "rows.npz", "data.json"  # in a run folder
TRAINED, HELD_OUT, MEASURED = "training set", "held out", "normalised on"
BESIDE = "text learned beside"
NOT_READ = "not used"
_ARRAYS = ("hashes", "lines", "files", "uses")
_HEX = 16  # digits of 8 bytes
_NAMED = 5  # runs without a table that are named
_SHOWN = 300  # characters of a row


class Source(NamedTuple):
    """A file that a run reads: what became of its rows by "file:line", and of those that are not named."""

    path: str
    uses: Mapping[str, str]
    rest: str


class Table(NamedTuple):
    """Rows in the order of their hashes; `files` are numbers in `data.json`, `uses` in `names`."""

    hashes: np.ndarray  # uint64 [n]
    lines: np.ndarray  # uint32 [n]
    files: np.ndarray  # uint16 [n]
    uses: np.ndarray  # uint8 [n]
    names: list[str]

    def dumped(self) -> bytes:
        """Returns the table as the bytes of an .npz."""
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **{name: getattr(self, name) for name in _ARRAYS}, names=self.names)
        return stream.getvalue()


@dataclasses.dataclass(frozen=True)
class Use:
    """A run that read a row. `line` is where it stood then."""

    run: str
    file: str
    version: str
    line: int
    use: str
    ended: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What runs say of a row.

    `other` are runs that read another row in the same line of a file of that name; `silent` runs that keep no table.
    """

    hash: str
    uses: list[Use]
    other: list[Use]
    silent: list[str]
    runs: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the answer as JSON-ready values."""
        return dataclasses.asdict(self)

    def as_text(self) -> str:
        """Returns the answer for the console."""
        lines = [f"{one.run} ({one.ended}): line {one.line:,} of {one.file}: {one.use}" for one in self.uses]
        if not lines:
            lines.append(f"read by none of {_text.plural(self.runs - len(self.silent), 'run')}")
        for one in self.other:
            lines.append(f"{one.run} ({one.ended}) read another row in line {one.line:,} of {one.file}: {one.use}")
        if self.silent:
            lines.append(unknown(self.silent))
        return "\n".join(lines)


def seen(sources: Sequence[Source]) -> tuple[list[dict[str, Any]], Table]:
    """Returns what each file holds now, its version with it, and the table of all their rows; one pass over each."""
    facts, hashes, lines, owners, uses = [], [], [], [], []
    names: dict[str, int] = {}
    for number, source in enumerate(sources):
        total, count = hashlib.sha256(), 0
        for where, value in rows.attempts(source.path):
            row = versions.row_hash(value)
            total.update(row.encode())
            use = source.uses.get(where, source.rest)
            hashes.append(int(row[:_HEX], 16))
            lines.append(rows.number(where))
            uses.append(names.setdefault(use, len(names)))
            count += 1
        owners += [number] * count
        facts.append(_facts(source.path, total.hexdigest(), count))
    sums = np.array(hashes, np.uint64)
    order = np.argsort(sums, kind="stable")
    return facts, Table(
        hashes=sums[order],
        lines=np.array(lines, np.uint32)[order],
        files=np.array(owners, np.uint16)[order],
        uses=np.array(uses, np.uint8)[order],
        names=list(names),
    )


def told(facts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yields a line on each file that a run reads: its version, and whether it has changed since the last one."""
    for one in facts:
        known = f"version {one['hash'][: versions.SHORT]}"
        if one["saved"]:
            known += f" of {one['saved']['created']}" + (f" ({one['saved']['note']})" if one["saved"]["note"] else "")
        yield f"{one['path']}: {known}, {one['rows']:,} rows"
        if one["changed"]:
            yield versions.warning(one["path"], one["changed"]["hash"], one["changed"]["created"])


def row_at(path: str, line: int) -> Any:
    """Returns the row that begins in a line (or has this number); a UserError says where there is none."""
    count = 0
    for where, value in rows.attempts(path):
        if rows.number(where) == line:
            if isinstance(value, files.BadRow):
                raise value
            return value
        count += 1
    raise errors.UserError(f"{path} has no row in line {line}; it has {count:,} rows (data.py preview shows them)")


def shown(path: str, line: int, value: Any) -> str:
    """Returns the beginning of a row on one line, private data masked, and below it its hash."""
    text = _hidden.printable(_hidden.hidden(json.dumps(value, ensure_ascii=False, default=str)))
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"{path}:{line}: {cut}\nhash {versions.row_hash(value)}"


def load(path: Path) -> Table:
    """Returns a table; a UserError says that it cannot be read."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            hashes, lines, files, uses = (stored[name] for name in _ARRAYS)
            return Table(hashes, lines, files, uses, stored["names"].tolist())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as bad:
        raise errors.UserError(f"{path}: no table of rows ({bad}); resuming the run writes it anew") from None


def runs(folder: Path) -> list[Path]:
    """Returns the runs in a folder, at any depth, or the run that the folder is."""
    if not folder.is_dir():
        raise errors.UserError(f"{folder}: no such folder; name one that holds run folders, say runs")
    found = sorted(file.parent for file in folder.rglob(FACTS) if (file.parent / "config.json").exists())
    if not found:
        raise errors.UserError(f"{folder}: holds no run; name a folder of run folders, say runs")
    return found


def of_row(folder: Path, path: str, line: int, value: Any) -> Answer:
    """Returns which runs read a row, wherever it stood then, in whichever file."""
    wanted = versions.row_hash(value)
    uses: list[Use] = []
    other: list[Use] = []
    silent: list[str] = []
    asked = runs(folder)
    for run in asked:
        if not (run / ROWS).exists():
            silent.append(str(run))
            continue
        table, told = load(run / ROWS), _read(run / FACTS)["files"]
        ended = _ended(run)
        one = lambda n, run=run, table=table, told=told, ended=ended: Use(
            run=str(run), file=told[table.files[n]]["path"], version=told[table.files[n]]["hash"],
            line=int(table.lines[n]), use=table.names[table.uses[n]], ended=ended,
        )  # fmt: skip
        key = np.uint64(int(wanted[:_HEX], 16))
        first, last = (int(np.searchsorted(table.hashes, key, side)) for side in ("left", "right"))
        if first < last:
            uses += sorted((one(n) for n in range(first, last)), key=lambda found: (found.file, found.line))
            continue
        same = [number for number, file in enumerate(told) if Path(file["path"]).name == Path(path).name]
        other += [one(n) for n in np.flatnonzero((table.lines == line) & np.isin(table.files, same))]
    return Answer(wanted, uses, other, silent, len(asked))


def of_file(folder: Path, hashes: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Returns by hash of a file's rows the runs that read just these, as "runs/a (done at step 40)".

    And the runs that do not tell, because an older ftjax made them.
    """
    found: dict[str, list[str]] = {one: [] for one in hashes}
    silent: list[str] = []
    for run in runs(folder):
        facts = _read(run / FACTS)
        if "files" not in facts:
            silent.append(str(run))
            continue
        for one in {file["hash"] for file in facts["files"]} & found.keys():
            found[one].append(f"{run} ({_ended(run)})")
    return found, silent


def unknown(silent: Sequence[str]) -> str:
    """Returns a sentence on runs that do not tell what they read."""
    named = ", ".join(silent[:_NAMED]) + (", ..." if len(silent) > _NAMED else "")
    return f"not known of {_text.plural(len(silent), 'run')} of an older ftjax: {named}"


def _facts(path: str, found: str, count: int) -> dict[str, Any]:
    """Returns what data.json says of a file: `saved` is its version, if it is one; `changed` the last, if it is not."""
    known = [] if path.startswith("world:") else versions.history(path)
    same = next((one for one in reversed(known) if one.hash == found), None)
    last = known[-1] if known and known[-1].hash != found else None
    return {
        "path": path,
        "hash": found,
        "rows": count,
        "saved": same and {"created": same.created, "note": same.note, "findings": same.findings},
        "changed": last and {"hash": last.hash, "created": last.created, "note": last.note},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as bad:
        raise errors.UserError(f"{path} cannot be read ({bad}); restore it, or move the run away") from None


def _ended(run: Path) -> str:
    """Returns how far a run came."""
    if (run / "DONE").exists() and (run / "summary.json").exists():
        return f"done at step {_read(run / 'summary.json')['step']:,}"
    return "failed" if (run / "FAILED").exists() else "not finished"
