"""Versions of data files: what a file held when, of what it was made, by which command.

They lie beside the file, in FILE.versions.json: {"format": 3, "versions": [...]}, newest last. A version is known by
the hash of its rows; on which lines they are and how their JSON is spaced does not matter. Plain text, for git, DVC or
a bucket to hold. What a file was made of is named as seen from its folder, so that a folder can be moved; in a
`Version` it is named as seen from here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import datetime
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ftjax import errors
from ftjax.data import files, rows, template

FORMAT = 3  # 2 named parents as seen from where the command ran, 1 had no `template`, no `tokens`; both are read
SHORT = 12  # characters of a hash that are shown


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _holds(value: Any, is_one: Callable[[Any], bool], names: Iterable[str] | None = None) -> bool:
    """Tells whether a value is an object of such values, and of these names where they are given."""
    of_names = isinstance(value, dict) and (names is None or value.keys() == set(names))
    return of_names and all(map(is_one, value.values()))


_TEXT, _COUNT = (_is_text, "text"), (_is_count, "a whole number")
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {  # of a version in its file: which values will do, in words
    "hash": _TEXT,
    "rows": _COUNT,
    "kind": _TEXT,
    "characters": _COUNT,
    "created": _TEXT,
    "command": _TEXT,
    "parents": (
        lambda value: isinstance(value, list) and all(_holds(one, _is_text, ("file", "hash")) for one in value),
        'a list of {"file": text, "hash": text}',
    ),
    "note": _TEXT,
    "findings": (lambda value: value is None or _holds(value, _is_count), "whole numbers by name, or null"),
    "template": (
        lambda value: value is None or _holds(value, _is_text, ("name", "hash")),
        '{"name": text, "hash": text}, or null',
    ),
    "tokens": (lambda value: value is None or _is_count(value), "a whole number, or null"),
}
_NEWER = ("template", "tokens")  # which format 1 lacks


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
    known = functools.cache(_known)  # read once, though the versions of a file have mostly one parent
    return [] if not file.exists() else [_placed(one, file, form, known) for form, one in _told(file)]


def _told(file: Path) -> list[tuple[int, Version]]:
    """Returns the versions as they stand in their file, each with the file's format."""

    def refuse(why: object) -> NoReturn:
        raise errors.UserError(f"{file}: no file of versions: {why}; restore it, or move it away") from None

    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as bad:
        refuse(bad)
    if not isinstance(told, dict) or not isinstance(told.get("versions"), list) or "format" not in told:
        refuse('it must be {"format": ..., "versions": [...]}')
    form = told["format"]
    if not _is_count(form) or not 1 <= form <= FORMAT:
        raise errors.UserError(f"{file}: format {form!r:.40}, but this ftjax reads 1 to {FORMAT}")
    for n, entry in enumerate(told["versions"]):
        if not isinstance(entry, dict):
            refuse(f"versions[{n}] is {entry!r:.40}, but must be an object")
        for name in sorted(entry.keys() - _KEYS.keys()):
            refuse(f"versions[{n}] has {name!r:.40}, which no version has")
        for name, (will_do, what) in _KEYS.items():
            if name not in entry and name not in _NEWER:
                refuse(f"versions[{n}] has no {name!r}")
            if name in entry and not will_do(entry[name]):
                refuse(f"versions[{n}].{name} is {entry[name]!r:.40}, but must be {what}")
    return [
        (form, Version(**{**one, "parents": tuple(Parent(**parent) for parent in one["parents"])}))
        for one in told["versions"]
    ]


def _placed(one: Version, file: Path, form: int, known: Callable[[str], set[str]]) -> Version:
    """Returns a version of a file of versions with its parents named as seen from here."""
    if form < 3:
        return dataclasses.replace(one, parents=tuple(_older(parent, file, known) for parent in one.parents))
    seen = (Parent(os.path.normpath(file.parent / parent.file), parent.hash) for parent in one.parents)
    return dataclasses.replace(one, parents=tuple(seen))


def _older(parent: Parent, file: Path, known: Callable[[str], set[str]]) -> Parent:
    """Returns a parent that is named as seen from where a command ran, which nobody wrote down.

    It is looked for from here, and from each folder above its child; its own versions must know the hash.
    """
    for folder in (Path(), *file.absolute().parents):
        found = os.path.abspath(folder / parent.file)
        if parent.hash in known(found):
            return Parent(found if file.is_absolute() else os.path.relpath(found), parent.hash)
    return parent


def _known(path: str) -> set[str]:
    """Returns the hashes of a file's versions; none where they cannot be read."""
    try:
        return {one.hash for _, one in _told(place(path))}
    except (OSError, errors.UserError):
        return set()


def _stored(one: Version, folder: Path) -> dict[str, Any]:
    """Returns a version as its file holds it: with its parents named as seen from there."""
    parents = [{"file": _seen(folder, parent.file), "hash": parent.hash} for parent in one.parents]
    return one.as_dict() | {"parents": parents}


def _seen(folder: Path, path: str) -> str:
    """Returns a path as seen from a folder, or whole where it has nothing in common with that: on another disk, say."""
    whole, base = os.path.abspath(path), os.path.abspath(folder)
    return whole if os.path.commonpath((whole, base)) == os.path.sep else os.path.relpath(whole, base)


def named(path: str, known: Sequence[Version], beginning: str) -> Version:
    """Returns the version whose hash begins so, of equal ones the newest; a UserError says of none, or of several."""
    found = {one.hash: one for one in known if one.hash.startswith(beginning)}
    if not found:
        shown = ", ".join(one.hash[:SHORT] for one in known[-5:])
        raise errors.UserError(f"{path} has no version {beginning!r}; its last ones: {shown}")
    if len(found) > 1:
        length = max(SHORT, len(beginning) + 4)
        shown = errors.some([f"{one.hash[:length]} of {one.created}" for one in reversed(found.values())], 5)
        raise errors.UserError(f"{path} has {len(found)} versions {beginning!r}: {shown}; give more of the hash of one")
    return next(iter(found.values()))


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
    file = place(path)
    told = {"format": FORMAT, "versions": [_stored(one, file.parent) for one in (*known, version)]}
    files.write_over(file, [json.dumps(told, indent=1, ensure_ascii=False), "\n"])
    return not same


def now(path: str) -> str:
    """Returns the hash of what a file holds."""
    return content(values(path)).hash


def gone(path: str) -> bool:
    """Tells whether a file is gone and its versions are still there; a UserError says that there is neither."""
    if path.startswith("world:") or Path(path).exists():
        return False
    if not history(path):
        files.existing(path)
    return True


def changed(path: str) -> str | None:
    """Returns a sentence where a file is not what its last version says, else None (also where it has no version)."""
    if path.startswith("world:"):
        return None
    known = history(path)
    if known and gone(path):
        last = known[-1]
        return f"{path} is gone; its last version, {last.hash[:SHORT]} of {last.created}, had {last.rows:,} rows"
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
            if (os.path.abspath(file), one.hash) in seen:
                continue
            seen.add((os.path.abspath(file), one.hash))
            yield depth, file, one
            for parent in one.parents:
                if os.path.abspath(parent.file) != os.path.abspath(file):
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
