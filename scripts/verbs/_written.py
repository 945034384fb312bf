"""What verbs that make data files share: refusing a place that is taken before the work, and noting the version."""

from pathlib import Path
import shlex
import sys

from ftjax import errors


def free(*places: Path) -> None:
    """Raises a UserError for the first place that is taken, or is no JSON Lines file in a folder that exists."""
    from ftjax.data import files

    for place in places:
        if place.suffix != ".jsonl":
            raise errors.UserError(f"{place}: rows are written as JSON Lines; name a file that ends in .jsonl")
        if not place.parent.is_dir():
            raise errors.UserError(f"{place}: there is no folder {str(place.parent)!r}; make it first")
        files.refuse_taken(place)


def write(place: Path, values: list, *, kind: str, parents: list[str], note: str) -> None:
    """Writes rows and their version, and says so."""
    from ftjax.data import files, versions

    files.write_rows(place, values)
    command = shlex.join(["data.py", *sys.argv[1:]])
    known = [parent for parent in parents if not parent.startswith("world:")]
    made = versions.recorded(str(place), values, kind=kind, command=command, parents=known, note=note)
    print(f"written: {place} ({len(values):,} rows, version {made.hash[: versions.SHORT]})")


def kind_of(data) -> str:
    """Returns what a version says that a file holds."""
    return "preferences" if data.of_preferences else "answers"
