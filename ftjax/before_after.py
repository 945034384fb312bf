"""The two ends of a run on the same rows: what stands in before.json, row by row, and what training changed.

held_out.jsonl and retention.jsonl have a row a line with what was measured `before` and `after`; `change` of the
summary is made of them.
"""

from collections.abc import Collection, Mapping, Sequence
import json
from typing import Any

from ftjax import held_out as held_outs
from ftjax.errors import UserError
from ftjax.evals import by_row, change
from ftjax.experiment import Experiment
from ftjax.runs import atomic
from ftjax.runs.folder import Folder

SETS = {"held_out": "held_out.jsonl", "retention": "retention.jsonl"}
FLIPPED = 2  # rows that are shown of those that flipped each way

Both = dict[str, by_row.Measured]  # by the name of the set


def sets(x: Experiment) -> dict[str, Any]:
    """Returns the sets of an experiment by name."""
    return {"held_out": x.held_out} | ({} if x.retention is None else {"retention": x.retention})


def numbers(found: Both) -> dict[str, float]:
    """Returns all means."""
    return {name: value for one in found.values() for name, value in one.numbers.items()}


def kept(x: Experiment, found: Both) -> dict[str, Any]:
    """Returns what before.json holds."""
    rows = {
        name: [{"id": told.id, **row} for told, row in zip(one.told, found[name].rows, strict=True)]
        for name, one in sets(x).items()
    }
    return {"metrics": numbers(found), "answers": held_outs.shown(found["held_out"].answers), "rows": rows}


def check(x: Experiment, known: Mapping[str, Any], path: str) -> None:
    """Raises where the rows that were measured before training are not those of now."""
    for name, rows in known.get("rows", {}).items():
        here = sets(x).get(name)
        if here is None or [row["id"] for row in rows] != [told.id for told in here.told]:
            where = x.config["retention"]["path"] if name == "retention" else "the held-out set"
            raise UserError(
                f"{path} was measured on other rows of {where or 'config.retention.path'}; put back the file as it "
                "was, or start a new run"
            )


def measured(x: Experiment, known: Mapping[str, Any]) -> list[str]:
    """Returns the sets that were measured before training: a run of an older ftjax has no rows and no retention."""
    return [name for name in sets(x) if name == "held_out" or name in known.get("rows", {})]


def both(x: Experiment, known: Mapping[str, Any], after: Both) -> dict[str, list[dict[str, Any]]]:
    """Returns the lines of held_out.jsonl and retention.jsonl, by set; none for a run of an older ftjax."""
    return {
        name: paired(sets(x)[name].told, rows, after[name].rows)
        for name, rows in known.get("rows", {}).items()
    }  # fmt: skip


def leave(rows: Mapping[str, Sequence[Mapping[str, Any]]], folder: Folder) -> None:
    """Writes held_out.jsonl and retention.jsonl."""
    for name, lines in rows.items():
        folder.text(SETS[name], "".join(json.dumps(atomic.strict(line)) + "\n" for line in lines))


def changed(rows: Mapping[str, Sequence[Mapping[str, Any]]], seed: int) -> dict[str, Any]:
    """Returns `change` of the summary."""
    return {name: change.of(lines, seed=seed) for name, lines in rows.items()}


def paired(
    told: Sequence[by_row.Told], before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the lines of held_out.jsonl."""
    return [
        {
            **one._asdict(),
            "before": {name: old[name] for name in sorted(old) if name != "id"},  # as before.json has them
            "after": {name: new[name] for name in sorted(new)},
        }
        for one, old, new in zip(told, before, after, strict=True)
    ]


def flipped(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], changes: Mapping[str, Any], seen: Collection[str]
) -> list[dict[str, Any]]:
    """Returns a few held-out rows that were won and a few that were lost, with their answers where there are any.

    Rows whose prompts are `seen` stand elsewhere already.
    """
    flips = changes.get("held_out", {}).get("flips")
    if not flips:
        return []
    others = [row for row in rows["held_out"] if row["prompt"] not in seen]
    won, lost = (change.flipped(others, flips["of"], sign)[:FLIPPED] for sign in (1, -1))
    shown = [*(("won", row) for row in won), *(("lost", row) for row in lost)]
    said = lambda values: values.get("answer", values.get(flips["of"]))
    return [
        {
            "flip": way,
            "prompt": row["prompt"],
            "reference": row["reference"] or "",
            "before": said(row["before"]),
            "after": said(row["after"]),
        }
        for way, row in shown
    ]
