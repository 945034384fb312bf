"""A comparison written into a folder: index.html, comparison.md, comparison.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftjax.compare import markdown, page
from ftjax.errors import UserError
from ftjax.runs import atomic

FILES = ("comparison.json", "comparison.md", "index.html")


def check(folder: Path) -> None:
    """Raises where the folder holds anything, for nothing of a user's is written over, or can not be made."""
    above = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if above.is_file() and above != folder.absolute():
        raise UserError(f"{folder} cannot be made: {above} is a file; give a new folder as --out")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; give a new folder as --out, nothing is written over")


def write(folder: Path, told: Mapping[str, Any]) -> None:
    """Writes the three files, each whole or not at all, over those of an earlier comparison."""
    texts = dict(zip(FILES[1:], (markdown.render(told), page.render(told)), strict=True))  # before anything is written
    with atomic.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / FILES[0], atomic.strict(dict(told)))
    for name, text in texts.items():
        atomic.write_text(folder / name, text)
