"""Where the numbers of a run go. A writer is any object with `write`, `text` and `close`; `Several` is one of many."""

from collections.abc import Collection, Mapping, Sequence
import contextlib
from pathlib import Path
from typing import Any, Protocol

from ftjax import errors, lookup
from ftjax.runs import console, jsonl, tensorboard, weights_and_biases

KINDS = ("console", "jsonl", "null", "tensorboard", "wandb")


class Writer(Protocol):
    """What the loop needs of a place for numbers."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes numbers of one step. A step may be written in parts, but each of its metrics once."""

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a table of texts, generated samples for one; the keys of a row are its columns."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Writes the final numbers and lets go of files and connections."""


class Null:
    """Writes nothing."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes nothing."""

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes nothing."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Writes nothing."""


class Several:
    """Writes to each of its writers in process 0, and nothing in any other process.

    As a context it closes them when the block fails, so that no progress bar is left on the screen.
    """

    def __init__(self, writers: Sequence[Writer], *, process: int) -> None:
        self.writers = tuple(writers) if process == 0 else ()
        self._last: dict[str, int] = {}
        self._closed = False

    def __enter__(self) -> "Several":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            with contextlib.suppress(Exception):  # the error of the block is the one to be seen
                self.close({})

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes numbers of one step, each metric at rising steps."""
        for name in numbers:
            assert self._last.get(name, -1) < step, (
                f"{name} was written at step {self._last[name]}, now again at {step}"
            )
            self._last[name] = step
        plain = {name: float(number) for name, number in numbers.items()}  # arrays are fetched once, not by each writer
        for writer in self.writers:
            writer.write(step, plain)

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a table of texts."""
        for writer in self.writers:
            writer.text(step, name, rows)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Closes every writer once, also when one of them fails; then raises the first error."""
        if self._closed:
            return
        self._closed = True
        first: Exception | None = None
        for writer in self.writers:
            try:
                writer.close(summary)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first


def make(
    kinds: Collection[str],
    folder: Path,
    *,
    process: int,
    config: Mapping[str, Any],
    steps: int,
    start: int,
    position: int | None,
    project: str,
    mode: str,
) -> Several:
    """Returns the writers named in `kinds`, all below the run folder `folder`.

    `start` is the step that a resumed run goes on from (0 for a new one), `position` the length of metrics.jsonl at its
    checkpoint. Where that is not known (None, or 0 of an older ftjax), because the run was without jsonl then, lines
    of later steps than `start` are cut. `project` and `mode` (auto | online | offline | disabled) are
    for W&B. Raises UserError on an unknown kind or a package that is not installed.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise errors.UserError(f"no writer {kind!r}.{lookup.suggestion(kind, list(KINDS))}")
    made: list[Writer] = []
    if process == 0:
        if "jsonl" in kinds:
            lines = jsonl.Jsonl(folder)
            if position:
                lines.truncate(position)
            else:
                lines.cut_after(start)
            made.append(lines)
        if "tensorboard" in kinds:
            made.append(tensorboard.TensorBoard(folder, start=start))
        if "wandb" in kinds:
            made.append(weights_and_biases.WandB(folder, config=config, project=project, mode=mode))
        if "console" in kinds:
            made.append(console.Console(total=steps, start=start))
    return Several(made, process=process)
