"""What verbs that make data files share: refusing a place that will not do before the work, and noting the version."""

from pathlib import Path
import shlex
import sys

from ftjax import errors


def free(*places: Path) -> None:
    """Raises a UserError for the first place that is taken, or is no JSON Lines file in a folder that exists.

    Versions that lie there already, of a file that was moved away, must be fit to be gone on with.
    """
    from ftjax.data import files, versions

    for place in places:
        if place.suffix != ".jsonl":
            raise errors.UserError(f"{place}: rows are written as JSON Lines; name a file that ends in .jsonl")
        if not place.parent.is_dir():
            raise errors.UserError(f"{place}: there is no folder {str(place.parent)!r}; make it first")
        files.refuse_taken(place)
        versions.history(str(place))


def write(place: Path, values: list, *, kind: str, parents: list[str], note: str) -> None:
    """Writes rows and their version, and says so."""
    from ftjax.data import versions

    made = put(place, values, kind=kind, parents=parents, note=note)
    print(f"written: {place} ({len(values):,} rows, version {made.hash[: versions.SHORT]})")


def put(place: Path, values: list, *, kind: str, parents: list[str], note: str):
    """Writes rows and their version, which is returned: all that can fail is done before the rows are there."""
    from ftjax.data import files, versions

    known = [versions.parent_of(name) for name in parents if not name.startswith("world:")]
    made = versions.of_rows(values, kind=kind, command=command(), parents=known, note=note, findings=None)
    files.write_rows(place, values)
    versions.save(str(place), made)
    return made


def begun(data, note: str):
    """Returns the version that a file is now, made of the one before, for `noted`."""
    from ftjax.data import versions

    known = versions.history(data.path)
    return versions.of_rows(
        versions.values(data.path),
        kind=kind_of(data),
        command=command(),
        parents=[versions.Parent(data.path, known[-1].hash)] if known else [],
        note=note,
        findings=None,
    )


def noted(version, data, report) -> str:
    """Saves a version with what `check` found of it, and returns a sentence that says so."""
    from ftjax.data import versions

    made = data.tokens.template if data.tokens is not None else None
    short, before = version.hash[: versions.SHORT], versions.history(data.path)
    if versions.save(data.path, versions.checked(version, report.summary, made)):
        return f"saved: version {short} of {data.path}"
    if versions.history(data.path) == before:
        return f"{data.path} is its last version still; nothing was saved"
    return f"{data.path} is its last version still, {short}; what the check found was noted there"


def command() -> str:
    """Returns the command that a version says it was made by."""
    return shlex.join(["data.py", *sys.argv[1:]])


def kind_of(data) -> str:
    """Returns what a version says that a file holds, or rows that were chosen from it."""
    return "preferences" if data.of_preferences else "answers"
