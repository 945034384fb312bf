"""Rows of the embedded made world: "world:TASK/train" or "world:TASK/heldout", with "?size=400&seed=1" for others.

The task "preferences" has pairs for preference optimisation, all others have chats; "descriptions" are chats that
answer the same requests as the corpus does, now well, now badly. "corpus" has rows of all kinds (chats and texts) of
the corpus that the base was made of ("train") or of one that it has not read ("heldout").
"""

from collections.abc import Iterator
from typing import Any
import urllib.parse

from ftjax import errors
from ftjax.data import files

PREFIX = "world:"
SUFFIXES = ("world:TASK/train", "world:TASK/heldout")
PAIRS, MIXED, CORPUS = "preferences", "descriptions", "corpus"
SPLITS = {"train": 600, "heldout": 200}  # rows when the path does not say; every task has as many


def accepts(path: str) -> bool:
    """Tells whether the path names a task of the embedded world."""
    return path.startswith(PREFIX)


def read(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("world:TASK/split:row", row) of a task of `ftjax.assets.world`; the same path gives the same rows."""
    from ftjax.assets import world

    name, _, query = path.removeprefix(PREFIX).partition("?")
    task, _, split = name.partition("/")
    known = (*world.TASKS, PAIRS, MIXED, CORPUS)
    if task not in known:
        raise errors.UserError(
            f"{path}: no task {task!r} in the embedded world{files.close_to(task, list(known))}; "
            f"tasks: {', '.join(known)}"
        )
    if split not in SPLITS:
        raise errors.UserError(
            f"{path}: no split {split!r}{files.close_to(split, list(SPLITS))}; write {path_of(task)}"
        )
    asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    if not set(asked) <= {"size", "seed"} or not all(value.isdigit() for value in asked.values()):
        raise errors.UserError(f"{path}: after '?' only size=N and seed=N may stand")
    size, seed = int(asked.get("size", SPLITS[split])), int(asked.get("seed", 0))
    own = {PAIRS: world.preferences, MIXED: world.descriptions, CORPUS: world.text}
    rows = own[task](split, size, seed) if task in own else world.task(task, split, size, seed)
    for number, row in enumerate(rows, start=1):
        yield f"{path}:{number}", row


def path_of(task: str) -> str:
    """Returns the two paths of a task, for error messages."""
    return " or ".join(f"{PREFIX}{task}/{split}" for split in SPLITS)
