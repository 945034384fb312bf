"""Checkpoints of what a run changes, by Orbax: the only place that knows it.

A checkpoint is the folder `<step>`, written beside under another name and renamed when it is complete, so a process
may be killed at any moment: what has a number for a name is whole. Inside: `tree/` (Orbax, one array a leaf path) and
`facts.json`. Leaves are saved flat by their dotted path, so a checkpoint can be read without the classes that made it.
"""

from collections.abc import Iterator
import contextlib
import json
import logging
import math
from pathlib import Path
import shutil
from typing import Any

import jax
import numpy as np

from ftjax import disk, hosts
from ftjax import tree as trees
from ftjax.checkpoint import folders
from ftjax.errors import UserError

_FACTS = "facts.json"


class Store:
    """The checkpoints of one run: the last `keep_last`, and the best one by a metric among the facts.

    keep_best: (name, "min" | "max") of a number in the facts, or None. Steps without that number, or with NaN, are
    never best. Every process of a run must make the same calls.
    """

    def __init__(self, folder: str | Path, keep_last: int, keep_best: tuple[str, str] | None = None):
        if keep_last < 1:
            raise UserError(f"keep_last={keep_last} must be at least 1, or there is nothing to resume from")
        if keep_best is not None and keep_best[1] not in ("min", "max"):
            raise UserError(f"keep_best={keep_best!r}: the second part is 'min' or 'max'")
        self.folder = Path(folder).expanduser().absolute()
        self.keep_last = keep_last
        self.keep_best = keep_best
        self._put_back()

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir())

    def latest(self) -> int | None:
        """Returns the last step, or None where nothing was saved yet."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Returns the step with the best number (the earliest of equals), or None where no step has one."""
        if self.keep_best is None:
            return None
        name, sense = self.keep_best
        sign = 1 if sense == "min" else -1
        scores = {step: self.facts(step).get(name) for step in self.steps()}
        known = {s: sign * v for s, v in scores.items() if isinstance(v, int | float) and not math.isnan(v)}
        return min(known, key=lambda step: (known[step], step), default=None)

    def facts(self, step: int) -> dict[str, Any]:
        """Returns what was saved beside the tree of a step."""
        return json.loads((self._path(step) / _FACTS).read_text(encoding="utf-8"))

    def save(self, step: int, tree: Any, facts: dict[str, Any]) -> None:
        """Writes a checkpoint (or replaces that of the same step), then removes those that need not be kept.

        Returns when it is on the disk. A full disk is a UserError and leaves the earlier ones as they were.
        """
        text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
        leaves = {path: _as_saved(leaf) for path, leaf in trees.paths(tree).items()}
        beside = self.folder / f"{step}.tmp"
        with self._primary_cleans(), folders.no_room(self._path(step)):
            if hosts.is_first():
                self.folder.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
            hosts.wait("ftjax.checkpoint.store.save")
            with _quiet():
                _orbax().save(beside / "tree", leaves)
            if hosts.is_first():
                (beside / _FACTS).write_text(text, encoding="utf-8")
                folders.sync(beside)
                self._swap_in(beside, step)
        if hosts.is_first():
            kept = {*self.steps()[-self.keep_last :], self.best()}
            for old in self.steps():
                if old not in kept:
                    self._remove(old)
        hosts.wait("ftjax.checkpoint.store.kept")

    def restore(self, step: int | None, like: Any) -> tuple[Any, dict[str, Any]]:
        """Returns (tree, facts) of a step (None: the last), with structure, dtypes and shardings of `like`.

        `like` holds arrays or ShapeDtypeStructs. A leaf that is missing, left over or of another shape is a UserError.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"{self.folder}: no checkpoint to restore")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise UserError(f"{self.folder}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
        path = self._path(step) / "tree"
        wanted = {name: _as_abstract(leaf) for name, leaf in trees.paths(like).items()}
        self._check(step, wanted)
        with _quiet():
            restored = _orbax().load(path, wanted)
        leaves = [_as_was(restored[name], leaf) for name, leaf in trees.paths(like).items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), self.facts(step)

    def _check(self, step: int, wanted: dict[str, jax.ShapeDtypeStruct]) -> None:
        with _quiet():
            stored = _orbax().metadata(self._path(step) / "tree").metadata
        missing, extra = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
        if missing or extra:
            words = [f"lacks {', '.join(missing[:5])}"] * bool(missing) + [f"has {', '.join(extra[:5])}"] * bool(extra)
            raise UserError(f"{self._path(step)}: of another model or optimizer: it {' and '.join(words)}")
        for name, leaf in wanted.items():
            if tuple(stored[name].shape) != leaf.shape:
                raise UserError(f"{self._path(step)}: {name} is {tuple(stored[name].shape)}, this run has {leaf.shape}")

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _swap_in(self, beside: Path, step: int) -> None:
        """Gives a complete checkpoint its name; one of the same step steps aside and is still whole until then."""
        aside = self.folder / f"{step}.replaced"
        if self._path(step).exists():
            self._path(step).rename(aside)
        beside.rename(self._path(step))
        disk.sync_folder(self.folder)
        if aside.exists():
            aside.rename(self.folder / f"{step}.old")

    def _put_back(self) -> None:
        """Undoes a swap that a kill interrupted between its two renames."""
        if hosts.is_first() and self.folder.is_dir():
            for aside in self.folder.glob("*.replaced"):
                whole = aside.with_suffix("")
                aside.rename(whole.with_suffix(".old") if whole.exists() else whole)

    def _remove(self, step: int) -> None:
        """Removes a checkpoint: renamed first, so that a kill in between leaves nothing that looks whole."""
        away = self.folder / f"{step}.old"
        shutil.rmtree(away, ignore_errors=True)
        self._path(step).rename(away)
        shutil.rmtree(away, ignore_errors=True)

    @contextlib.contextmanager
    def _primary_cleans(self) -> Iterator[None]:
        """Removes what a failed or killed save left behind."""
        try:
            yield
        finally:
            if hosts.is_first() and self.folder.is_dir():
                for left in (*self.folder.glob("*.tmp"), *self.folder.glob("*.old")):
                    shutil.rmtree(left, ignore_errors=True)


def _orbax() -> Any:
    """Returns Orbax's API, imported on the first use (0.4 s)."""
    from orbax.checkpoint import v1

    return v1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's lines (a dozen a save, through absl) off the screen."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)  # of an error it logs 200 lines, and raises it as well
    try:
        yield
    finally:
        logger.setLevel(before)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_saved(leaf: Any) -> Any:
    """Returns an array as Orbax takes it: keys as their numbers, Python scalars as arrays."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _committed(like: Any) -> bool:
    """True where a leaf has a place of its own; others follow the computation, and must go on doing so."""
    return like.committed if isinstance(like, jax.Array) else getattr(like, "sharding", None) is not None


def _as_abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = leaf.sharding if _committed(leaf) else here
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding if sharding.is_fully_replicated else here)
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _as_was(value: jax.Array, like: Any) -> Any:
    """Returns a restored array as the kind of thing that `like` is."""
    if not hasattr(like, "dtype"):
        return type(like)(value)
    if isinstance(like, np.ndarray | np.generic):
        return np.asarray(value)
    if not _committed(like):
        value = jax.device_put(np.asarray(value))
    return jax.random.wrap_key_data(value, impl=like.dtype) if _is_key(like) else value
