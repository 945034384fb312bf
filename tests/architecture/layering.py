"""The layering of docs/architecture.md as tables, and one function a rule that reads source and imports nothing.

A row names a room: a module or package below ftjax/, or one module of it that has rules of its own ("data.loader").
"""

import ast
from collections.abc import Iterator
import functools
import os
from pathlib import Path
import subprocess
import sys
from typing import NamedTuple

MAY_IMPORT = {
    "errors": set(),
    "losses": set(),  # not even errors: any loss can be checked by hand, and by other frameworks
    "assets": {"errors"},
    # What scripts/make_base.py calls to make the embedded base. Nothing of the library may lean on it.
    "assets.vocabulary": {"errors", "assets"},
    "assets.measure": {
        *("errors", "assets", "assets.vocabulary", "data", "algorithms", "checkpoint", "models", "sampling", "train"),
    },
    "assets.pretrain": {
        *("errors", "assets", "assets.measure", "assets.vocabulary", "data", "algorithms", "checkpoint"),
        *("models", "runs", "train"),
    },
    "tree": {"errors"},
    "lookup": {"errors"},
    "disk": {"errors"},
    "config": {"errors", "lookup"},
    "hosts": {"errors"},
    "mesh": {"errors", "tree"},
    "data": {"errors", "lookup", "assets"},
    "data.loader": {"errors", "lookup", "data"},
    "quant": {"errors", "lookup", "tree"},
    "adapters": {"errors", "lookup", "tree", "quant"},
    "nn": {"errors", "mesh", "quant", "adapters"},
    "models": {"errors", "lookup", "tree", "mesh", "quant", "nn"},
    "sampling": {"errors", "hosts", "mesh", "nn", "models"},
    "verify": {"errors", "lookup"},
    "rl": {"errors", "data", "losses", "nn", "models", "sampling"},
    # What the processes of reward functions import: without jax, they start in a moment.
    "rl.calls": {"errors"},
    "rl.processes": {"errors", "rl.calls"},
    "rl.rewards": {"errors", "lookup", "config", "rl.calls", "rl.processes"},
    "rl.scores": {"errors", "verify"},
    "rl.rollout": {"errors", "hosts", "data", "models", "sampling", "rl", "rl.rewards"},
    "algorithms": {"errors", "tree", "data", "losses", "adapters", "nn", "models", "sampling", "rl"},
    "runs": {"errors", "lookup", "config", "tree", "disk"},
    "checkpoint": {"errors", "hosts", "lookup", "tree", "disk", "mesh", "data", "quant", "adapters", "models"},
    "planner": {"errors", "tree", "nn", "models"},
    "evals": {
        *("errors", "hosts", "lookup", "tree", "data", "assets", "verify", "losses", "adapters", "nn", "models"),
        "sampling",
    },
    "compare": {"errors", "config", "data", "runs", "evals"},
    "train": {
        *(
            "errors",
            "hosts",
            "lookup",
            "tree",
            "mesh",
            "data",
            "losses",
            "quant",
            "adapters",
            "algorithms",
            "checkpoint",
        ),
        *("runs", "evals"),
    },
    "inference": {
        *(
            "errors",
            "hosts",
            "lookup",
            "config",
            "tree",
            "mesh",
            "data",
            "quant",
            "adapters",
            "models",
            "sampling",
            "checkpoint",
        ),
    },
    "answering": {"errors", "data"},
    "answers_of_runs": {"errors", "data", "checkpoint", "answering", "inference"},
    "scoring": {"errors", "hosts", "data", "adapters", "models", "checkpoint", "inference"},
    "row_scores": {"errors", "lookup", "data", "evals", "checkpoint", "held_out", "inference"},
    "held_out": {"errors", "lookup", "data", "evals", "inference"},
    "held_out_preferences": {"errors", "lookup", "data", "evals", "held_out", "inference", "models"},
    "retention": {"errors", "data", "evals", "held_out", "inference", "models"},
    "objective": {"errors", "lookup", "config", "tree", "adapters", "algorithms", "checkpoint", "losses", "models"},
    "held_out_prompts": {
        *("errors", "lookup", "data", "evals", "held_out", "held_out_preferences", "inference", "models"),
    },
    "training_data": {
        *("errors", "config", "data", "evals", "held_out", "held_out_preferences", "held_out_prompts", "models"),
        "objective",
    },
    "rollouts": {
        *("errors", "hosts", "lookup", "config", "mesh", "data", "losses", "adapters", "models", "sampling", "rl"),
        *("rl.rewards", "algorithms", "train", "checkpoint", "inference", "objective", "scoring"),
    },
    "watch": {"rl", "held_out_prompts", "runs"},
    "people": {"errors", "lookup", "config", "tree", "data", "runs", "evals"},
}
PROGRAMS = {"assets.measure", "assets.pretrain", "assets.vocabulary"}  # only each other and scripts/ import these
# What scripts call. The composition roots import anything but these, unless it is their own work.
COMMANDS = {"run", "evaluation", "benchmarks", "long_text", "judging", "export", "quantization", "sweep"}


def _but(*allowed: str) -> set[str]:
    return {*(COMMANDS - set(allowed)), *PROGRAMS}


MAY_NOT_IMPORT = {
    "experiment": _but(),
    "reference": {"scoring", *_but()},
    "reward_report": _but(),
    "before_after": _but(),
    "results": _but(),
    **{name: _but(name) for name in COMMANDS - {"sweep"}},
    "own_pairs": {"pipeline", *_but("evaluation", "export", "quantization")},
    "comparison": {"pipeline", *_but("evaluation", "export", "quantization")},
    "pipeline": _but("run"),
    "curve": {"pipeline", *_but("run", "sweep")},
    "sweep": {"curve", "pipeline", *_but("run", "sweep")},
}
ROOMS = {*MAY_IMPORT, *MAY_NOT_IMPORT}

ONLY_AT = {
    "ml_collections": {"config", "experiment", "pipeline"},
    "wandb": {"runs"},
    "orbax": {"checkpoint"},
    "safetensors": {"checkpoint"},
    "gguf": {"data"},
    "httpx": {"evals"},
    "krippendorff": {"evals"},
    "lm_eval": {"evals"},
    "rouge_score": {"evals"},
    "sacrebleu": {"evals"},
    "statsmodels": {"evals"},
    "sentencepiece": {"data"},
    "jsonschema": {"data", "verify"},
    "jsonschema_specifications": {"verify"},
    "referencing": {"verify"},
    "langdetect": {"verify"},
    "datasets": {"data", "evals"},
    "detect_secrets": {"data"},
    "ftfy": {"data"},
    "phonenumbers": {"data"},
    "py3langid": {"data"},
    "rensa": {"data"},
    "sklearn": {"data"},
    "grain": {"data.loader"},
    "transformers": {"data", "data.loader", "checkpoint", "assets.vocabulary"},
    "tokenizers": {"data", "assets.vocabulary"},
    "matplotlib": {"runs"},
    "tensorboardX": {"runs"},
    "fastapi": {"people", "serving"},
    "starlette": {"people", "serving"},
    "uvicorn": {"people", "serving"},
    "flask": {"people", "serving"},
    "absl": set(),  # scripts/ only
    "torch": set(),  # tests/parity only
    "scripts": set(),
    "configs": set(),
    "tests": set(),
}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
JAX_FREE = {
    *("errors", "lookup", "disk", "config", "data", "data.loader", "assets", "assets.vocabulary", "compare"),
    *("verify", "rl.calls", "rl.processes", "rl.rewards", "rl.scores"),
}
STANDARD_LIBRARY_ONLY = {"errors", "lookup", "disk", "assets"}
MAY_PRINT = {"runs", *PROGRAMS}

LONGEST_FILE = 400  # lines
LONGEST_SCRIPT = 120
LARGEST_FILE = 8_000_000  # bytes
CODE = ("ftjax", "configs", "scripts", "tests")
NO_CODE = {".git", ".venv", ".venv-parity", "build", "dist", "__pycache__", "wandb"}


class Source(NamedTuple):
    """A Python file with its place in the house."""

    name: str  # path below the root
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The row of MAY_IMPORT that this file stands in; empty outside of ftjax/."""
        parts = Path(self.name).with_suffix("").parts
        return room_of(parts[1:]) if parts[0] == "ftjax" and len(parts) > 1 else ""


class Import(NamedTuple):
    """One imported thing: `from ftjax.data import records` is `ftjax.data.records`."""

    source: Source
    line: int
    path: tuple[str, ...]
    relative: bool

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}"


def room_of(parts: tuple[str, ...]) -> str:
    """Returns the longest row of the table that begins like the dotted path."""
    return next((".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in ROOMS), parts[0])


def sources(root: Path, *folders: str) -> list[Source]:
    """Returns all Python files below folders of the root."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]
    texts = [(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")) for file in files]
    return [Source(name, text, _parse(text)) for name, text in texts]


@functools.cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def imports(source: Source) -> Iterator[Import]:
    """Returns every import of a file, also those inside functions."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(source, node.lineno, tuple(alias.name.split(".")), False)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(source, node.lineno, (*(node.module or "").split("."), alias.name), node.level > 0)


def every_import(root: Path, *folders: str) -> list[Import]:
    """Returns every import of every file below folders of the root."""
    return [entry for source in sources(root, *folders) for entry in imports(source)]


def rooms(root: Path) -> Iterator[str]:
    """A room imports only the rooms that its row allows, and has a row."""
    for source in sources(root, "ftjax"):
        room = source.room
        if not room or room == "__init__":
            continue
        if room not in ROOMS:
            yield f"{source.name}: the room {room!r} has no row in MAY_IMPORT"
            continue
        for entry in imports(source):
            target = room_of(entry.path[1:]) if entry.path[0] == "ftjax" and len(entry.path) > 1 else room
            if not may_import(room, target):
                yield f"{entry}: {room} may not import {target}"


def may_import(room: str, target: str) -> bool:
    """Returns whether the tables let a room import another. Who may import `data` may import `data.loader`."""
    if room in MAY_NOT_IMPORT:
        return target not in MAY_NOT_IMPORT[room]
    package = target.partition(".")[0]
    inherited = package in MAY_IMPORT[room] and target not in PROGRAMS and package != room
    return target in {room, "__version__"} | MAY_IMPORT[room] or inherited


def libraries(root: Path) -> Iterator[str]:
    """A library is imported only in the rooms that are for it."""
    for entry in every_import(root, "ftjax"):
        library, room = entry.path[0], entry.source.room
        if room not in ONLY_AT.get(library, {room}):
            yield f"{entry}: {library} is imported in {sorted(ONLY_AT[library]) or 'no room'} only"


def jax_free(root: Path) -> Iterator[str]:
    """Rooms that start fast do not import jax."""
    for entry in every_import(root, "ftjax"):
        if entry.source.room in JAX_FREE and entry.path[0] in JAX:
            yield f"{entry}: {entry.source.room} does not import jax, and {entry.path[0]} does"


def standard_library(root: Path) -> Iterator[str]:
    """Rooms that everything leans on need nothing installed."""
    for entry in every_import(root, "ftjax"):
        if entry.source.room in STANDARD_LIBRARY_ONLY and entry.path[0] not in {*sys.stdlib_module_names, "ftjax"}:
            yield f"{entry}: {entry.source.room} uses the standard library only, not {entry.path[0]}"


def outside(root: Path) -> Iterator[str]:
    """Nobody imports scripts, but they share `scripts.cli`; config files import nothing of ftjax but `ftjax.config`."""
    for entry in every_import(root, "configs", "scripts", "tests"):
        inner = entry.path[1:2] if entry.path[1:2] in (("bench",), ("repro",), ("verbs",)) else ()
        room = "/".join(("scripts", *inner, ""))
        shared = entry.source.name.startswith(room) and (inner or entry.path[1:2] == ("cli",))
        if entry.path[0] == "scripts" and not shared:
            yield f"{entry}: nobody imports scripts"
        if entry.source.name.startswith("configs/") and entry.path[0] == "ftjax" and entry.path[1:2] != ("config",):
            yield f"{entry}: a config file imports ftjax.config alone"


def absolute(root: Path) -> Iterator[str]:
    """Imports are absolute, and annotations are not turned into strings."""
    for entry in every_import(root, *CODE):
        if entry.relative:
            yield f"{entry}: imports are absolute"
        if entry.path == ("__future__", "annotations"):
            yield f"{entry}: no `from __future__ import annotations`; bind and beartype read annotations"


def lengths(root: Path) -> Iterator[str]:
    """A file fits in a sitting."""
    for source in sources(root, *CODE):
        limit = LONGEST_SCRIPT if Path(source.name).parent == Path("scripts") else LONGEST_FILE
        count = len(source.text.splitlines())
        if count > limit:
            yield f"{source.name}: {count} lines, more than {limit}"


def inits(root: Path) -> Iterator[str]:
    """An `__init__` says what lives here, and does nothing."""
    for source in sources(root, "ftjax"):
        if Path(source.name).name != "__init__.py":
            continue
        if ast.get_docstring(source.tree) is None:
            yield f"{source.name}: an __init__ begins with a docstring"
        for node in source.tree.body[1:]:
            version = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
            if not (version and source.name == "ftjax/__init__.py"):
                yield f"{source.name}:{node.lineno}: an __init__ holds a docstring and nothing else"


def calls(root: Path) -> Iterator[str]:
    """Only what talks to people prints, and a config value is never asked for with a default."""
    for source in sources(root, "ftjax"):
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name == "print" and source.room not in MAY_PRINT:
                yield f"{source.name}:{node.lineno}: print belongs to scripts/ and runs/"
            if name.endswith(".get") and name != "os.environ.get" and source.room == "experiment":
                yield f"{source.name}:{node.lineno}: {name}(...) hides a default; defaults are in configs/defaults.py"


def sizes(root: Path) -> Iterator[str]:
    """No file is too large for a repository."""
    for folder, inside, names in os.walk(root):
        here = Path(folder) == root
        inside[:] = [
            name for name in inside if not (name in NO_CODE or name.endswith("_cache") or (here and name == "runs"))
        ]
        for file in (Path(folder) / name for name in names):
            if not file.is_symlink() and file.stat().st_size > LARGEST_FILE:
                size = file.stat().st_size
                yield f"{file.relative_to(root).as_posix()}: {size:,} bytes, more than {LARGEST_FILE:,}"


def ignored(root: Path) -> Iterator[str]:
    """No source file is kept out of git, and out of the linters and the wheel with it, by .gitignore."""
    names = [source.name for source in sources(root, *CODE)]
    command = ["git", "-C", str(root), "check-ignore", "--no-index", "--stdin"]
    try:
        done = subprocess.run(command, input="\n".join(names), capture_output=True, text=True, check=False)
    except OSError:
        return  # no git here
    for name in done.stdout.splitlines():
        yield f"{name}: .gitignore hides a source file"


RULES = (
    *(rooms, libraries, jax_free, standard_library, outside, absolute),
    *(lengths, inits, calls, sizes, ignored),
)
