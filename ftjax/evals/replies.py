"""Answers of a judge, kept on disk as soon as they are there, so that nothing is asked twice."""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
from pathlib import Path
import sqlite3
import threading
from typing import Any, NamedTuple

from ftjax.errors import UserError
from ftjax.evals.judge import Messages


class Reply(NamedTuple):
    """An answer with its size in tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int


Keep = Callable[[int, Reply], None]  # number of the request, its reply
Ask = Callable[[Sequence[Messages], Keep], None]  # calls Keep once for each request, from any thread


class Replies:
    """A file of replies by the hash of what was asked of whom; each is on the disk when `put` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=60, check_same_thread=False)
            with self._file:
                self._file.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path} cannot keep replies ({error}); set FTJAX_CACHE to a folder that can") from error

    def get(self, key: str) -> Reply | None:
        """Returns the reply, None if it is not there."""
        with self._lock:
            row = self._file.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        if not row:
            return None
        text, *sizes = json.loads(row[0])
        return Reply(whole(text), *(max(int(size), 0) for size in sizes))  # as `endpoint` takes replies now

    def put(self, key: str, reply: Reply) -> None:
        """Keeps a reply."""
        with self._lock, self._file:
            self._file.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(reply)))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def whole(text: str) -> str:
    """Returns a text as UTF-8 can hold it: half of a surrogate pair becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def key(judge: Mapping[str, Any], messages: Messages) -> str:
    """Returns the hash of a request: who is asked, with which settings, and every message."""
    return hashlib.sha256(json.dumps([judge, messages], sort_keys=True).encode()).hexdigest()


def ask(
    kept: Replies,
    judge: Mapping[str, Any],
    requests: Sequence[Messages],
    rest: Ask,
    *,
    count: Callable[[Reply], None],
    tell: Callable[[int, int], None],
) -> tuple[list[Reply], int]:
    """Returns the replies to all requests in their order, and how many were asked now: those that are not kept.

    A request that stands in the list several times is asked once. `count` hears of every kept reply before `rest` asks
    the others, so that a budget holds over a kill; `tell` hears after each reply how many there are, of how many.
    """
    keys = [key(judge, one) for one in requests]
    found = {one: reply for one in dict.fromkeys(keys) if (reply := kept.get(one)) is not None}
    for reply in found.values():
        count(reply)
    new = {one: messages for one, messages in zip(keys, requests, strict=True) if one not in found}
    names, total = list(new), len(found) + len(new)
    lock = threading.Lock()

    def keep(number: int, reply: Reply) -> None:
        kept.put(names[number], reply)
        with lock:
            found[names[number]] = reply
            tell(len(found), total)

    if new:
        rest(list(new.values()), keep)
    return [found[one] for one in keys], len(new)
