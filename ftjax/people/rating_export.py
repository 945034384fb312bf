"""Files of what raters said."""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any

from ftjax import errors
from ftjax.data import files
from ftjax.people import rating_report, verdicts, votes
from ftjax.people import store as people_store


def write(store: people_store.Store, places: Mapping[str, Path], *, flagged: str) -> list[str]:
    """Returns a line a file that was written: `out` (votes), `preferences`, `pairs`, `ratings` and `report`.

    Nothing is written where one is there already, or would hold no row. `flagged` says what becomes of raters who
    failed an attention check: keep or drop, and the lines say so.
    """
    kept = lambda rows: [row for row in rows if flagged == "keep" or not row["flagged"]]
    given = kept(votes.votes(store))
    asked = len({vote["item"] for vote in given})
    found: dict[str, tuple[Sequence[Any], str]] = {
        "out": (given, "votes"),
        "preferences": (votes.preferences(given), f"those of {asked:,} pairs on which most raters agree"),
        "pairs": (votes.pairs(given), "pairs with votes"),
        "ratings": (kept(votes.ratings(store)), "ratings"),
    }
    for path in places.values():
        files.refuse_taken(path)
        if not path.absolute().parent.is_dir():
            raise errors.UserError(f"{path}: there is no folder {str(path.parent)!r}; make it first")
    if len({path.absolute() for path in places.values()}) < len(places):
        raise errors.UserError("two of the files have one name; give each its own")
    wanted = [(path, *found[name]) for name, path in places.items() if name != "report"]
    for path, rows, what in wanted:
        if not rows:
            raise errors.UserError(f"{path}: there is nothing to write yet ({what}: 0); status says how far it is")
    for path, rows, _ in wanted:
        files.write_rows(path, rows)
    said = [f"{path}: {len(rows):,} rows ({what})" for path, rows, what in wanted]
    if "report" in places:
        report_to = places["report"]
        told = verdicts.report(store, flagged=flagged)
        text = json.dumps(told, indent=1) + "\n" if report_to.suffix == ".json" else rating_report.markdown(told)
        files.write_new(report_to, [text])
        said.append(f"{report_to}: report")
    failed = [rater for rater, one in votes.attention(store).items() if one.flagged]
    if failed:
        what = "left out" if flagged == "drop" else "kept, with the column `flagged`"
        said.append(f"failed an attention check: {', '.join(failed)} ({what})")
    return said
