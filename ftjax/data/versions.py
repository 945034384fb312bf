"""Versions of data files: what a file held when, of what it was made, by which command.

They lie beside the file, in FILE.versions.json: {"format": 1, "versions": [...]}, newest last. A version is known by
the hash of its rows; on which lines they are and how their JSON is spaced does not matter. Plain text, for git, DVC or
a bucket to hold.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import datetime
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from ftjax import errors
from ftjax.data import files, rows, template

FORMAT = 2  # 1 had no `template` and no `tokens`; it is read too
SHORT = 12  # characters of a hash that are shown


class Content(NamedTuple):
    """What tells rows from others, and how many they are."""

    hash: str
    rows: int


class Parent(NamedTuple):
    """A file that another was made of, and its version then."""

    file: str
    hash: str


@dataclasses.dataclass(frozen=True)
class Version:
    """What a file held at one time."""

    hash: str
    rows: int
    kind: str  # "answers" or "preferences"
    characters: int  # of the rows as JSON
    created: str  # ISO 8601, UTC
    command: str
    parents: tuple[Parent, ...]
    note: str
    findings: dict[str, int] | None  # of `check`: errors, warnings, notes; None where it was not run
    template: dict[str, str] | None = None  # chat template that `check --model` wrote the rows with: name, hash
    tokens: int | None = None  # of the rows as that template writes them

    def as_dict(self) -> dict[str, Any]:
        """Returns the version as JSON-ready values."""
        return {**dataclasses.asdict(self), "parents": [parent._asdict() for parent in self.parents]}


def place(path: str) -> Path:
    """Returns where the versions of a file are kept."""
    if path.startswith("world:"):
        raise errors.UserError(f"{path}: rows of the made world are made anew each time; they have no versions")
    return Path(path.rstrip("/") + ".versions.json")


def row_hash(value: Any) -> str:
    """Returns the hash of a row: of its JSON with sorted keys, null columns left out."""
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if item is not None}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def content(values: Iterable[Any]) -> Content:
    """Returns the hash of rows in their order, and their number."""
    total, count = hashlib.sha256(), 0
    for value in values:
        total.update(row_hash(value).encode())
        count += 1
    return Content(total.hexdigest(), count)


def of_rows(
    values: Iterable[Any],
    *,
    kind: str,
    command: str,
    parents: Sequence[Parent],
    note: str,
    findings: dict[str, int] | None,
) -> Version:
    """Returns the version that rows make, in their order."""
    total = hashlib.sha256()
    count = characters = 0
    for value in values:
        total.update(row_hash(value).encode())
        count += 1
        characters += len(json.dumps(value, ensure_ascii=False, default=str))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Version(total.hexdigest(), count, kind, characters, now, command, tuple(parents), note, findings)


def template_facts(made: template.Template | None) -> dict[str, str] | None:
    """Returns the name of a chat template and the hash of its text, or None where there is none."""
    if made is None:
        return None
    return {"name": made.name, "hash": hashlib.sha256(made.text.encode()).hexdigest()}


def history(path: str) -> list[Version]:
    """Returns the versions of a file, oldest first; a UserError says what is wrong with their file."""
    file = place(path)
    if not file.exists():
        return []
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        found = [
            Version(**{**entry, "parents": tuple(Parent(**parent) for parent in entry["parents"])})
            for entry in told["versions"]
        ]
        form = told["format"]
    except (ValueError, KeyError, TypeError) as bad:
        raise errors.UserError(f"{file}: no file of versions ({bad}); restore it, or move it away") from None
    if form not in (1, FORMAT):
        raise errors.UserError(f"{file}: format {form!r}, but this ftjax reads {FORMAT}")
    return found


def save(path: str, version: Version) -> bool:
    """Adds a version to those of a file and returns True.

    One that is the last already is not added again; what a later `check` found of it is put into the one that is there.
    """
    known = history(path)
    same = bool(known) and known[-1].hash == version.hash
    if same:
        *known, last = known
        late = {name: getattr(version, name) for name in ("findings", "template", "tokens")}
        version = dataclasses.replace(last, **{name: value for name, value in late.items() if value is not None})
        if version == last:
            return False
    told = {"format": FORMAT, "versions": [one.as_dict() for one in (*known, version)]}
    files.write_over(place(path), [json.dumps(told, indent=1, ensure_ascii=False), "\n"])
    return not same


def now(path: str) -> str:
    """Returns the hash of what a file holds."""
    return content(values(path)).hash


def changed(path: str) -> str | None:
    """Returns a sentence where a file is not what its last version says, else None (also where it has no version)."""
    if path.startswith("world:"):
        return None
    known = history(path)
    if not known or known[-1].hash == now(path):
        return None
    return warning(path, known[-1].hash, known[-1].created)


def warning(path: str, last: str, created: str) -> str:
    """Returns the sentence on a file that is not what its last version says."""
    return (
        f"{path} has changed since its version {last[:SHORT]} of {created}; "
        f"data.py log {path} --save NOTE makes a new one"
    )


def lineage(path: str) -> Iterator[tuple[int, str, Version]]:
    """Yields (depth, file, version) of a file, newest first, and below each what it was made of, where it is known."""
    seen: set[tuple[str, str]] = set()

    def below(file: str, wanted: str | None, depth: int) -> Iterator[tuple[int, str, Version]]:
        for one in reversed(history(file)):
            if wanted is not None and one.hash != wanted:
                continue
            if (file, one.hash) in seen:
                continue
            seen.add((file, one.hash))
            yield depth, file, one
            for parent in one.parents:
                if parent.file != file:
                    yield from below(parent.file, parent.hash, depth + 1)

    yield from below(path, None, 0)


def checked(version: Version, summary: Mapping[str, Any], made: template.Template | None) -> Version:
    """Returns a version with what `check` found of it; `made` is the template with which it counted tokens."""
    return dataclasses.replace(
        version,
        findings={name: summary[name] for name in ("errors", "warnings", "notes")},
        template=template_facts(made),
        tokens=summary["tokens"]["all"] if "tokens" in summary else None,
    )


def recorded(
    path: str, values: Iterable[Any], *, kind: str, command: str, parents: Sequence[str], note: str
) -> Version:
    """Returns the version of a file that a command has just written, which is saved beside it."""
    made = of_rows(
        values, kind=kind, command=command, parents=[parent_of(name) for name in parents], note=note, findings=None
    )
    save(path, made)
    return made


def parent_of(path: str) -> Parent:
    """Returns a file with what it holds now."""
    return Parent(path, now(path))


def told(one: Version) -> str:
    """Returns a version on one line."""
    made = f"; of {', '.join(f'{parent.file} {parent.hash[:SHORT]}' for parent in one.parents)}" if one.parents else ""
    found = ""
    if one.findings is not None:
        found = "; " + ", ".join(f"{count:,} {name}" for name, count in one.findings.items())
    if one.tokens is not None:
        found += f"; {one.tokens:,} tokens"
    note = f"; {one.note}" if one.note else ""
    return f"{one.hash[:SHORT]}  {one.created}  {one.rows:,} rows of {one.kind}{found}{made}{note}"


def values(path: str) -> Iterator[Any]:
    """Yields the rows of a file, and in the place of one that cannot be read what is wrong with it."""
    for where, value in rows.attempts(path):
        yield f"{value.rule} {rows.number(where)}" if isinstance(value, files.BadRow) else value
