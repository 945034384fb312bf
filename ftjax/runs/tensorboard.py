"""Numbers as TensorBoard event files, through tensorboardX (the `tensorboard` extra), which needs no TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftjax import errors


class TensorBoard:
    """Writes `tensorboard/` below a run folder. A resumed run purges what it writes once more, from `start` on."""

    def __init__(self, folder: Path, *, start: int) -> None:
        try:
            import tensorboardX
        except ImportError:
            raise errors.UserError(
                "the tensorboard writer needs tensorboardX, which is not installed; pip install 'ftjax[tensorboard]'"
            ) from None
        self._writer = tensorboardX.SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes one scalar a number."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the table as Markdown."""
        if rows:
            columns = list(rows[0])
            lines = [
                columns,
                ["---"] * len(columns),
                *([str(row.get(column, "")) for column in columns] for row in rows),
            ]
            cells = (" | ".join(cell.replace("\n", "<br>").replace("|", "\\|") for cell in line) for line in lines)
            self._writer.add_text(name, "\n".join(f"| {line} |" for line in cells), step)

    def close(self, summary: Mapping[str, Any]) -> None:  # noqa: ARG002 - TensorBoard has no place for it
        """Flushes and closes the event file."""
        self._writer.close()
