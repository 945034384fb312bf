"""What was asked, of whom, and every answer ever given, in one SQLite file.

An item is asked one question. A rater gives an item one answer at a time: a later one stands in its place, and undo
brings the earlier one back. Rows of `answers` are only ever added (triggers refuse the rest); `standing` points at
those that count now. A call that writes returns when its transaction is on the disk (WAL, synchronous=FULL), so what
was acknowledged outlives a kill and a power cut. Any number of threads and processes may use one file.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import json
from pathlib import Path
import secrets
import sqlite3
import threading
import time
from typing import Any

from ftjax import errors
from ftjax.people import schema

FORMAT = 1
PATIENCE = 20.0  # seconds that a call waits for another process to finish its transaction

_TAKEN = "this submission has the key of another one, so it is not kept; reload the page and send it again"
_COLUMNS = "a.number, a.item, a.rater, a.body, a.counts, a.settles, a.supersedes, a.undoes, a.time"


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of an item: a module of `kinds/`, and what that kind wants to know (axes, anchors), JSON-ready."""

    id: str
    kind: str
    setting: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Item:
    """A thing that is asked about, the text that it is found by, and how many raters are wanted to answer."""

    id: str
    question: str
    payload: dict[str, Any]
    search: str
    wanted: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer as it was given; a body of None takes an answer back.

    `counts` is False where the rater passed, so that another one is asked. `settles` marks a decision over answers
    that differ. `supersedes` is the number of the rater's answer that stood before, `undoes` that of the one that an
    undo took back.
    """

    number: int
    item: str
    rater: str
    body: dict[str, Any] | None
    counts: bool
    settles: bool
    supersedes: int | None
    undoes: int | None
    time: float


class Taken(errors.UserError):
    """A submission under the key of another one, which is not kept."""


class Store:
    """The open file. Close it, or use it as a context."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = Path(path), clock
        if not self.path.parent.is_dir():
            raise errors.UserError(f"{path}: there is no folder {str(self.path.parent)!r}; make it first")
        self._lock = threading.RLock()  # one connection for all threads: SQLite writes one transaction at a time anyway
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._check()  # before anything is set: what is not ours stays as it is
            for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._connection.execute(f"PRAGMA {setting}")
            with self.writing() as connection:
                if not schema.names(connection):
                    for statement in schema.statements():
                        connection.execute(statement)
                    about = {"format": FORMAT, "id": secrets.token_hex(8)}
                    connection.executemany(
                        "INSERT INTO about VALUES (?, ?)", [(n, _dumped(v)) for n, v in about.items()]
                    )
        except sqlite3.Error as bad:
            self.close()
            raise errors.UserError(
                f"{path}: cannot be used as a file of answers ({bad}); is it one, in a folder to write in?"
            ) from None
        except errors.UserError:
            self.close()
            raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file when no thread is at it; what was acknowledged is in it, and the last to close leaves nothing
        beside it."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Returns a context with the connection, for statements that write nothing."""
        with self._lock:
            assert self._connection is not None, "the store is closed"
            yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Returns a context that is one transaction: all of it is on the disk when it ends, or nothing."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _check(self) -> None:
        with self.reading() as connection:
            tables = schema.names(connection)
            if tables and "about" not in tables:
                raise errors.UserError(f"{self.path}: is a database of something else; move it away, or name another")
            found = connection.execute("SELECT value FROM about WHERE name = 'format'").fetchone() if tables else None
            if tables and (found is None or json.loads(found[0]) != FORMAT):
                raise errors.UserError(f"{self.path}: format {found and found[0]}, but this ftjax reads {FORMAT}")

    def about(self, name: str) -> Any:
        """Returns what was noted of the whole under a name, or None."""
        with self.reading() as connection:
            found = connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def fill(self, about: dict[str, Any], questions: Iterable[Question], items: Iterable[Item]) -> None:
        """Adds what is noted of the whole, questions and items, behind those that are there; all of it or nothing."""
        with self.writing() as connection:
            noted = [(name, _dumped(value)) for name, value in about.items()]
            connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", noted)
            asked = [(one.id, one.kind, _dumped(one.setting)) for one in questions]
            connection.executemany("INSERT INTO questions VALUES (?, ?, ?)", asked)
            values = ((one.id, one.question, _dumped(one.payload), searchable(one.search), one.wanted) for one in items)
            connection.executemany(
                "INSERT INTO items (id, question, payload, search, wanted) VALUES (?, ?, ?, ?, ?)", values
            )

    def questions(self) -> dict[str, Question]:
        """Returns the questions by id."""
        with self.reading() as connection:
            found = connection.execute("SELECT id, kind, setting FROM questions").fetchall()
        return {name: Question(name, kind, json.loads(setting)) for name, kind, setting in found}

    def item(self, name: str) -> Item:
        """Returns an item; a UserError says that there is none of this id."""
        with self.reading() as connection:
            found = connection.execute(
                "SELECT id, question, payload, '', wanted FROM items WHERE id = ?", (name,)
            ).fetchone()
        if found is None:
            raise errors.UserError(f"there is no item {name!r}")
        return Item(found[0], found[1], json.loads(found[2]), found[3], found[4])

    def items(self) -> list[Item]:
        """Returns every item, in the order in which they were added."""
        with self.reading() as connection:
            found = connection.execute("SELECT id, question, payload, '', wanted FROM items ORDER BY place").fetchall()
        return [Item(name, asked, json.loads(payload), text, wanted) for name, asked, payload, text, wanted in found]

    def answer(
        self, item: str, rater: str, body: dict[str, Any], *, counts: bool, key: str | None, settles: bool = False
    ) -> Answer:
        """Returns the answer as it is kept, on the disk, in the place of the rater's earlier one to the item.

        `key` names the submission: sent again, after an acknowledgement that was lost, it is the same answer, and
        anything else under it is Taken. A UserError says that the rater has seen what others say and so cannot answer
        blind.
        """
        with self.writing() as connection:
            found = _submitted(connection, key)
            if found is not None:
                same = (found.item, found.rater, found.settles, found.undoes) == (item, rater, settles, None)
                if not same or _dumped(found.body) != _dumped(body):
                    raise Taken(_TAKEN)
                return found
            if not settles:
                _refuse_seen(connection, item, rater)
            before = _standing(connection, item, rater, settles)
            made = _added(connection, item, rater, body, counts, settles, before, None, self.clock(), key)
            connection.execute("DELETE FROM leases WHERE item = ? AND rater = ?", (item, rater))
        return made

    def undo(self, rater: str, *, key: str | None) -> Answer | None:
        """Returns the rater's last answer that is not taken back yet, and takes it back; None where there is none.

        What stood before it stands again. History keeps both. `key` is that of `answer`.
        """
        with self.writing() as connection:
            done = _submitted(connection, key)
            if done is not None:
                if done.undoes is None or done.rater != rater:
                    raise Taken(_TAKEN)
                again = f"SELECT {_COLUMNS} FROM answers a WHERE number = ?"
                return _answer(connection.execute(again, (done.undoes,)).fetchone())
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM answers a WHERE rater = ? AND undoes IS NULL "
                "AND NOT EXISTS (SELECT 1 FROM answers b WHERE b.undoes = a.number) ORDER BY number DESC LIMIT 1",
                (rater,),
            ).fetchone()
            if found is None:
                return None
            last = _answer(found)
            if not last.settles:
                _refuse_seen(connection, last.item, rater)
            body, counts = None, False
            if last.supersedes is not None:
                row = connection.execute("SELECT body, counts FROM answers WHERE number = ?", (last.supersedes,))
                text, counts = row.fetchone()
                body = None if text is None else json.loads(text)
            standing = _standing(connection, last.item, rater, last.settles)
            now = self.clock()
            _added(connection, last.item, rater, body, counts, last.settles, standing, last.number, now, key)
        return last

    def standing(self, item: str | None = None) -> list[Answer]:
        """Returns the answers that stand, to one item or to all, in the order in which they were given."""
        chosen = "" if item is None else "AND s.item = ?"
        with self.reading() as connection:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM standing s JOIN answers a ON a.number = s.number "
                f"WHERE a.body IS NOT NULL {chosen} ORDER BY a.number",
                () if item is None else (item,),
            ).fetchall()
        return [_answer(row) for row in found]

    def standing_to(self, question: str) -> list[Answer]:
        """Returns the answers that stand to all items of a question, in the order in which they were given."""
        with self.reading() as connection:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM standing s JOIN answers a ON a.number = s.number "
                "JOIN items i ON i.id = a.item WHERE a.body IS NOT NULL AND i.question = ? ORDER BY a.number",
                (question,),
            ).fetchall()
        return [_answer(row) for row in found]

    def together(self) -> list[tuple[str, str, bool, list[Answer]]]:
        """Returns the items that more than one rater has answered: id, question, whether they have the answers that
        are wanted, and what stands."""
        with self.reading() as connection:
            found = connection.execute(
                f"SELECT i.question, i.counted >= i.wanted, {_COLUMNS} FROM items i JOIN standing s ON s.item = i.id "
                "JOIN answers a ON a.number = s.number WHERE i.counted > 1 AND a.body IS NOT NULL "
                "ORDER BY i.place, a.number"
            ).fetchall()
        made: dict[str, tuple[str, str, bool, list[Answer]]] = {}
        for asked, full, *row in found:
            answer = _answer(tuple(row))
            made.setdefault(answer.item, (answer.item, asked, bool(full), []))[3].append(answer)
        return list(made.values())

    def history(self, item: str | None = None) -> list[Answer]:
        """Returns every answer ever given, to one item or to all, those that were taken back among them."""
        chosen = "" if item is None else "WHERE a.item = ?"
        with self.reading() as connection:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM answers a {chosen} ORDER BY a.number", () if item is None else (item,)
            ).fetchall()
        return [_answer(row) for row in found]

    def reveal(self, item: str, rater: str) -> list[Answer]:
        """Returns the answers that stand to an item, and notes that the rater has seen them."""
        with self.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (item, rater, self.clock()))
            connection.execute("DELETE FROM leases WHERE item = ? AND rater = ?", (item, rater))
        return self.standing(item)


def _added(
    connection: sqlite3.Connection,
    item: str,
    rater: str,
    body: dict[str, Any] | None,
    counts: bool,
    settles: bool,
    supersedes: int | None,
    undoes: int | None,
    now: float,
    key: str | None,
) -> Answer:
    values = (
        item,
        rater,
        None if body is None else _dumped(body),
        int(counts),
        int(settles),
        supersedes,
        undoes,
        now,
        key,
    )
    number = connection.execute(
        "INSERT INTO answers (item, rater, body, counts, settles, supersedes, undoes, time, key) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    ).lastrowid
    connection.execute("INSERT OR REPLACE INTO standing VALUES (?, ?, ?, ?)", (item, rater, int(settles), number))
    connection.execute(
        "UPDATE items SET counted = (SELECT count(*) FROM given g WHERE g.item = items.id AND g.counts) WHERE id = ?",
        (item,),
    )
    assert number is not None
    return Answer(number, item, rater, body, counts, settles, supersedes, undoes, now)


def _submitted(connection: sqlite3.Connection, key: str | None) -> Answer | None:
    """Returns what was kept under a key, or None."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM answers a WHERE key = ?", (key,)).fetchone()
    return None if found is None else _answer(found)


def _refuse_seen(connection: sqlite3.Connection, item: str, rater: str) -> None:
    if connection.execute("SELECT 1 FROM seen WHERE item = ? AND rater = ?", (item, rater)).fetchone():
        raise errors.UserError(
            f"{rater} has seen what others say of item {item}, so another answer would not be blind; "
            "settle it under Conflicts"
        )


def _standing(connection: sqlite3.Connection, item: str, rater: str, settles: bool) -> int | None:
    found = connection.execute(
        "SELECT number FROM standing WHERE item = ? AND rater = ? AND settles = ?", (item, rater, int(settles))
    ).fetchone()
    return None if found is None else found[0]


def _answer(row: tuple[Any, ...]) -> Answer:
    number, item, rater, body, counts, settles, supersedes, undoes, when = row
    text = None if body is None else json.loads(body)
    return Answer(number, item, rater, text, bool(counts), bool(settles), supersedes, undoes, when)


def _dumped(value: Any) -> str:
    return json.dumps(value, default=str)  # ASCII: half a character is kept as it is, which UTF-8 cannot hold


def searchable(text: str) -> str:
    """Returns a text as items are found by it: without case, and without half characters, which SQLite cannot hold."""
    return whole(text).casefold()


def whole(text: str) -> str:
    """Returns a text with "?" in the place of half characters."""
    return text.encode("utf-8", "replace").decode("utf-8")
