"""Who gets which item next: never one that they have answered, none that enough others have answered or hold.

An item that is handed out is leased to its rater: as long as the lease lasts it counts as answered, so two who work at
once do not get the same item where one answer suffices. A lease that is not renewed runs out, and the item is free
again. An answer is taken whether its lease lasts or not: work is never thrown away.
"""

from collections.abc import Callable
import json
from typing import Any, NamedTuple
import zlib

from ftjax.people import store as people_store

LEASE = 900.0  # seconds
FOUND = 200  # items of a list, at most
_UNANSWERED = "NOT EXISTS (SELECT 1 FROM given g WHERE g.item = l.item AND g.rater = l.rater)"


class Progress(NamedTuple):
    """How far the work is. `open` lacks answers, `mine` were answered by the rater, of which `passed` were skipped.

    `answers` is how many count, of the `wanted` ones; more than an item wants count as what it wants.
    """

    items: int
    open: int
    answers: int
    wanted: int
    mine: int
    passed: int


class Line(NamedTuple):
    """An item in a list: how many answers it has and wants, and the rater's own."""

    item: people_store.Item
    counted: int
    mine: dict[str, Any] | None


def second_opinions(names: list[str], share: float, *, seed: int) -> set[str]:
    """Returns those ids of items that two raters are to answer: each is chosen by a hash of its own, so more items or
    another share change none of the others needlessly."""
    return {name for name in names if zlib.crc32(f"{seed} {name}".encode()) < share * 2**32}


def following(
    store: people_store.Store, rater: str, *, lease: float, order: Callable[[str], Any] | None
) -> people_store.Item | None:
    """Returns the item that a rater is to answer next, leased; None where nothing is left for them.

    The one that they hold comes first, so a reload shows it again. Else the first in the order of the store, or that
    has the least `order(id)`.
    """
    with store.writing() as connection:
        now = store.clock()
        connection.execute("DELETE FROM leases WHERE until <= ?", (now,))
        held = connection.execute(
            f"SELECT l.item FROM leases l WHERE l.rater = ? AND {_UNANSWERED} LIMIT 1", (rater,)
        ).fetchone()
        if held is None:
            free = connection.execute(
                "SELECT i.id FROM items i WHERE i.counted < i.wanted "
                "AND NOT EXISTS (SELECT 1 FROM given g WHERE g.item = i.id AND g.rater = :rater) "
                "AND NOT EXISTS (SELECT 1 FROM seen WHERE item = i.id AND rater = :rater) AND i.counted + "
                f"(SELECT count(*) FROM leases l WHERE l.item = i.id AND l.rater <> :rater AND {_UNANSWERED}) "
                "< i.wanted ORDER BY i.place",
                {"rater": rater},
            )
            found = free.fetchone() if order is None else min(free, key=lambda row: order(row[0]), default=None)
            free.close()
        else:
            found = held
        if found is None:
            return None
        connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (found[0], rater, now + lease))
    return store.item(found[0])


def take(store: people_store.Store, item: str, rater: str, *, lease: float) -> None:
    """Leases an item to a rater who chose it, or who is at it still; the one that they held before is free again."""
    with store.writing() as connection:
        connection.execute("DELETE FROM leases WHERE rater = ?", (rater,))
        connection.execute("INSERT INTO leases VALUES (?, ?, ?)", (item, rater, store.clock() + lease))


def want(store: people_store.Store, twice: set[str], *, otherwise: int, chosen: int) -> None:
    """Sets how many answers are wanted: `chosen` of the items of the set, `otherwise` of the others."""
    with store.writing() as connection:
        connection.execute("UPDATE items SET wanted = ?", (otherwise,))
        connection.executemany("UPDATE items SET wanted = ? WHERE id = ?", [(chosen, name) for name in sorted(twice)])


def progress(store: people_store.Store, rater: str) -> Progress:
    """Returns how far all are, and how much of it the rater has done."""
    with store.reading() as connection:
        items, left, answers, wanted = connection.execute(
            "SELECT count(*), total(counted < wanted), total(min(counted, wanted)), total(wanted) FROM items"
        ).fetchone()
        mine, passed = connection.execute(
            "SELECT count(*), total(counts = 0) FROM given WHERE rater = ?", (rater,)
        ).fetchone()
    return Progress(items, int(left), int(answers), int(wanted), mine, int(passed))


def find(
    store: people_store.Store, rater: str, *, text: str, only: str, among: list[str] | None, after: int
) -> tuple[list[Line], int]:
    """Returns items that hold a text (in any case), and how many there are.

    `only` is "all", "open", "mine", "skipped" or "todo" (open, and not answered by the rater); `among` names the only
    ids that are looked at. At most FOUND are returned, from number `after` on.
    """
    kept = {
        "all": "1",
        "open": "i.counted < i.wanted",
        "mine": "g.body IS NOT NULL",
        "skipped": "g.counts = 0",
        "todo": "i.counted < i.wanted AND g.body IS NULL",
    }[only]
    source = (
        "FROM items i LEFT JOIN standing s ON s.item = i.id AND s.rater = :rater AND s.settles = 0 "
        "LEFT JOIN answers g ON g.number = s.number AND g.body IS NOT NULL "
        f"WHERE {kept} AND (:sought = '' OR instr(i.search, :sought))"
    )
    values: dict[str, Any] = {"rater": rater, "sought": people_store.searchable(text), "most": FOUND, "after": after}
    if among is not None:
        source += " AND i.id IN (SELECT value FROM json_each(:among))"
        values["among"] = json.dumps(among)
    with store.reading() as connection:
        total = connection.execute(f"SELECT count(*) {source}", values).fetchone()[0]
        found = connection.execute(
            f"SELECT i.id, i.question, i.payload, i.wanted, i.counted, g.body {source} "
            "ORDER BY i.place LIMIT :most OFFSET :after",
            values,
        ).fetchall()
    lines = [
        Line(
            people_store.Item(name, asked, json.loads(payload), "", wanted),
            counted,
            None if body is None else json.loads(body),
        )
        for name, asked, payload, wanted, counted, body in found
    ]
    return lines, total
