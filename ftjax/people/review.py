"""The review of a data file: its rows as items, what the reviewers decided, and a file of it.

The answers lie beside the file, in FILE.review.sqlite, and are of what the file held when the review began: a file that
has changed since is refused, because answers would be to other rows.
"""

from collections.abc import Mapping, Sequence
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

from ftjax import errors
from ftjax.data import files, rows, versions
from ftjax.people import assign, server
from ftjax.people import store as people_store
from ftjax.people.kinds import review as kind

QUESTION = "row"
SEED = 0  # of the hash that chooses rows for second opinions
UNDECIDED = ("keep", "drop")
FEW = 10  # lines that are named one by one


class Decision(NamedTuple):
    """What was decided of a row: accept, edit or reject; "open" without an answer, "conflict" where two differ,
    "unreadable" where the line holds no row.

    `row` is what the row became, None where it is left out; `by` are those whose answers say so.
    """

    line: int
    decision: str
    row: Any
    by: tuple[str, ...]
    answers: tuple[people_store.Answer, ...]


def place(path: str) -> Path:
    """Returns where the answers to a file are kept."""
    if path.startswith("world:"):
        raise errors.UserError(f"{path}: rows of the made world are in no file; review a file of yours")
    return Path(path.rstrip("/") + ".review.sqlite")


def opened(
    data: rows.DataFile, *, columns: Mapping[str, str] | None, second_opinions: float | None
) -> people_store.Store:
    """Returns the store of a file's review, begun where there is none; a UserError says that the file has changed.

    `second_opinions` is the share of rows that two reviewers see; None leaves what there is, which begins with 0.
    """
    if second_opinions is not None and not 0 <= second_opinions <= 1:
        raise errors.UserError(f"--second-opinions {second_opinions} must be a share of the rows, from 0 to 1")
    items = [
        people_store.Item(str(number), QUESTION, {"line": row.line, "row": row.value}, _searched(row), 1)
        for number, row in enumerate(data.rows, start=1)
        if not isinstance(row.refusal, files.BadRow)
    ]
    if not items:
        raise errors.UserError(
            f"{data.path}: no row can be read, so there is nothing to review; data.py check says why"
        )
    store = people_store.Store(place(data.path))
    try:
        about: dict[str, Any] = {
            "file": Path(data.path).name,
            "hash": versions.now(data.path),
            "columns": dict(columns or {}),
        }
        begun: dict[str, Any] = {name: store.about(name) for name in about}
        if begun["hash"] is None:
            asked = people_store.Question(QUESTION, "review", {"of_preferences": data.of_preferences})
            store.fill({**about, "begun": store.clock()}, [asked], items)
        elif begun["hash"] != about["hash"]:
            raise errors.UserError(
                f"{data.path} has changed since its review began (then {begun['hash'][: versions.SHORT]}, now "
                f"{about['hash'][: versions.SHORT]}): bring it back as it was, or move {store.path} away to begin "
                "anew; the answers stay in it"
            )
        elif begun["columns"] != about["columns"]:
            told = ",".join(f"{known}={own}" for known, own in begun["columns"].items()) or "none"
            raise errors.UserError(f"{data.path}: its review began with --columns {told}; give the same")
        if second_opinions is not None:
            twice = assign.second_opinions([one.id for one in items], second_opinions, seed=SEED)
            assign.want(store, twice, otherwise=1, chosen=2)
    except BaseException:
        store.close()
        raise
    return store


def campaign(
    data: rows.DataFile, store: people_store.Store, *, findings: Sequence[Mapping[str, Any]], guidelines: str
) -> server.Campaign:
    """Returns the page: rows with their findings, those of the file as a whole beside the guidelines."""
    of_lines: dict[int, list[dict[str, Any]]] = {}
    for one in findings:
        if one["line"] is not None:
            of_lines.setdefault(one["line"], []).append(dict(one))
    whole = tuple(f"{one['rule']} ({one['severity']}): {one['message']}" for one in findings if one["line"] is None)
    unread = unreadable(data)
    if unread:
        places = _few([str(row.line) for row in unread])
        whole = (f"{len(unread):,} lines cannot be read and are not shown: {places}.", *whole)
    numbered = enumerate(data.rows, start=1)
    return server.Campaign(
        title=f"Review of {Path(data.path).name}",
        store=store,
        guidelines=guidelines,
        finish=f"data.py review {data.path} --export OUT.jsonl writes the reviewed file.",
        notes=whole,
        words={"answer": "Review", "items": "Rows"},
        details=lambda item: {"findings": of_lines.get(item.payload["line"], [])},
        flagged=tuple(str(number) for number, row in numbered if row.line in of_lines),
    )


def flags(path: str, data: rows.DataFile) -> list[dict[str, Any]]:
    """Returns the findings that `data.py check --json` printed into a file; a UserError says why they are not ours."""
    way = f"make it anew: data.py check {data.path} --json > {path}"
    try:
        told = json.loads(files.text(path))
        found = [
            {name: one[name] for name in ("rule", "severity", "line", "message", "suggestion")}
            for one in told["findings"]
        ]
        if bad := [one for one in found if not all(isinstance(value, str | int | None) for value in one.values())]:
            raise TypeError(bad[0])
        count = told["rows"]
    except (ValueError, KeyError, TypeError) as bad:
        if isinstance(bad, errors.UserError):
            raise
        raise errors.UserError(f"{path}: does not hold what data.py check --json prints ({bad!r}); {way}") from None
    if count != len(data.rows):
        raise errors.UserError(f"{path}: is of {count} rows, but {data.path} has {len(data.rows)}; {way}")
    return found


def decided(data: rows.DataFile, store: people_store.Store) -> list[Decision]:
    """Returns what was decided of each row, in their order."""
    given: dict[str, list[people_store.Answer]] = {}
    for answer in store.standing():
        if answer.counts:
            given.setdefault(answer.item, []).append(answer)
    found = []
    for number, row in enumerate(data.rows, start=1):
        if isinstance(row.refusal, files.BadRow):
            found.append(Decision(row.line, "unreadable", None, (), ()))
        else:
            found.append(_decision(row, tuple(given.get(str(number), ()))))
    return found


def unreadable(data: rows.DataFile) -> list[rows.Row]:
    """Returns the lines that hold no row, on which nobody can decide."""
    return [row for row in data.rows if isinstance(row.refusal, files.BadRow)]


def _decision(row: rows.Row, answers: tuple[people_store.Answer, ...]) -> Decision:
    settled = [one for one in answers if one.settles][-1:]
    blind = [one for one in answers if not one.settles]
    if not answers:
        return Decision(row.line, "open", row.value, (), answers)
    bodies = [one.body or {} for one in settled or blind]
    if any(not kind.agree(one, other) for one, other in itertools.combinations(bodies, 2)):
        return Decision(row.line, "conflict", row.value, (), answers)
    body = bodies[0]
    became = {"accept": row.value, "edit": body.get("row"), "reject": None}[body["decision"]]
    return Decision(row.line, body["decision"], became, tuple(one.rater for one in settled or blind), answers)


def kept(decisions: Sequence[Decision], *, undecided: str | None) -> list[Any]:
    """Returns the rows of the reviewed file. `undecided` says what becomes of rows that are open or in conflict;
    without it they are refused, and so are lines that hold no row, which can only be left out."""
    if undecided is not None and undecided not in UNDECIDED:
        raise errors.UserError(f"--undecided {undecided}: is none of {', '.join(UNDECIDED)}")
    left = counts(decisions)
    if undecided is None and left["open"] + left["conflict"]:
        raise errors.UserError(
            f"{left['open']:,} rows have no answer and {left['conflict']:,} are in conflict; go on with the review, or "
            "give --undecided keep (as they are) or --undecided drop"
        )
    lost = [str(one.line) for one in decisions if one.decision == "unreadable"]
    if undecided is None and lost:
        raise errors.UserError(
            f"{len(lost):,} lines hold no row that can be read, so they cannot be in the export: {_few(lost)}; "
            "give --undecided keep or --undecided drop, and it is made without them (data.py check says what is wrong)"
        )
    found = [one.row for one in decisions if _stays(one, undecided)]
    if not found:
        raise errors.UserError("no row is left; a file of none is not written")
    return found


def counts(decisions: Sequence[Decision]) -> dict[str, int]:
    """Returns how many rows were decided how."""
    found = dict.fromkeys(("accept", "edit", "reject", "open", "conflict", "unreadable"), 0)
    for one in decisions:
        found[one.decision] += 1
    return found


def note(decisions: Sequence[Decision]) -> str:
    """Returns one line for the version: what was decided, and by whom how much."""
    names: dict[str, int] = {}
    for one in decisions:
        for rater in one.by:
            names[rater] = names.get(rater, 0) + 1
    said = {
        "accept": "accepted", "edit": "edited", "reject": "rejected", "open": "open", "conflict": "in conflict",
        "unreadable": "left out as unreadable",
    }  # fmt: skip
    parts = ", ".join(f"{count:,} {said[name]}" for name, count in counts(decisions).items() if count)
    return f"reviewed: {parts}; by {', '.join(f'{name} ({count:,})' for name, count in names.items()) or 'nobody'}"


def told(decisions: Sequence[Decision], *, undecided: str | None) -> list[dict[str, Any]]:
    """Returns who decided what, one object a row of the reviewed file: `written` is its row in the new file."""
    found, written = [], 0
    for one in decisions:
        stays = _stays(one, undecided)
        written += stays
        answers = [
            {
                "reviewer": answer.rater,
                "decision": (answer.body or {})["decision"],
                "comment": (answer.body or {})["comment"],
                "settles": answer.settles,
                "time": answer.time,
            }
            for answer in one.answers
        ]
        place = {"line": one.line, "written": written if stays else None}
        found.append({**place, "decision": one.decision, "by": list(one.by), "answers": answers})
    return found


def _few(names: Sequence[str]) -> str:
    """Returns the first names, and how many there are besides."""
    rest = f" and {len(names) - FEW:,} more" if len(names) > FEW else ""
    return f"{', '.join(names[:FEW])}{rest}"


def _stays(one: Decision, undecided: str | None) -> bool:
    return one.decision in ("accept", "edit") or (undecided == "keep" and one.decision in ("open", "conflict"))


def _searched(row: rows.Row) -> str:
    return f"line {row.line}\n{json.dumps(row.value, ensure_ascii=False, default=str)}"
