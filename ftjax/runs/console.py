"""Numbers for the eyes: a progress bar on a terminal, plain lines where the output is kept (a file, a batch system)."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import math
import sys
import time
from typing import Any

import rich.console
import rich.progress
import rich.table
import rich.text

# Plain lines come at least this far apart: a second, later 2 % of the time passed, so that a day is some 500 lines.
SECONDS_BETWEEN_LINES = 1.0
SHARE_BETWEEN_LINES = 0.02
WIDE = 110  # columns of a terminal from which on there is room for a bar
EVAL = ("eval_", "eval/")


class Console:
    """Shows loss, learning rate, gradient norm, tokens/s and memory with the time left.

    A closed pipe (`| head`) silences it; it never ends the run.
    """

    def __init__(self, *, total: int, start: int, console: rich.console.Console | None = None) -> None:
        self.console = console or rich.console.Console(file=sys.stdout, highlight=False)
        self.total = total
        self.start = start
        self._begun = time.monotonic()
        self._shown = -math.inf
        self._bar: rich.progress.Progress | None = None
        if self.console.is_terminal:
            self._bar = rich.progress.Progress(*_columns(self.console.width), console=self.console, expand=True)
            self._task = self._bar.add_task("train", total=total, completed=start, numbers="")
            self._bar.start()

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        self._print(rich.text.Text(line))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Shows the numbers of a step; evaluations always, training steps at a rate that a reader can follow."""
        evals = {name: number for name, number in numbers.items() if name.startswith(EVAL)}
        if evals:
            self.say(f"step {step:,}  " + "  ".join(f"{name} {short(number)}" for name, number in evals.items()))
        if len(evals) == len(numbers):
            return
        line = summary_line(numbers)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=line)
            return
        passed = time.monotonic() - self._begun
        last = step >= self.total
        if last or passed - self._shown >= max(SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES * passed):
            self._shown = passed
            self.say(f"step {step:,}/{self.total:,}  {line}  {self._eta(step, passed)}".rstrip())

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Prints the table; in plain output one `column: text` a line, which wraps nowhere."""
        if not rows:
            return
        columns = list(rows[0])
        if self.console.is_terminal:
            table = rich.table.Table(*columns, title=f"{name}, step {step:,}", title_justify="left", show_lines=True)
            for row in rows:
                table.add_row(*(rich.text.Text(str(row.get(column, ""))) for column in columns))
            self._print(table)
            return
        self.say(f"{name}, step {step:,}")
        for row in rows:
            for column in columns:
                self.say(f"  {column}: {str(row.get(column, '')).strip()}")

    def close(self, summary: Mapping[str, Any]) -> None:  # noqa: ARG002 - the script prints it as it sees fit
        """Ends the bar and leaves it on the screen."""
        if self._bar is not None:
            with unbroken(self.console):
                self._bar.stop()

    def _eta(self, step: int, passed: float) -> str:
        """Returns the time left at the mean speed of this process; nothing at the first step, which compiles."""
        done = step - self.start
        if done <= 1 or step >= self.total:
            return ""
        return f"ETA {duration(passed / done * (self.total - step))}"

    def _print(self, what: rich.text.Text | rich.table.Table) -> None:
        with unbroken(self.console):
            self.console.print(what, soft_wrap=not self.console.is_terminal)


def _columns(width: int) -> list[rich.progress.ProgressColumn]:
    """Returns the parts of the bar. Of a narrow terminal the time left and the loss get the room, not the bar."""
    rest = rich.table.Column(ratio=1, no_wrap=True, overflow="ellipsis")
    numbers = rich.progress.TextColumn("{task.fields[numbers]}", table_column=rest)
    step = rich.progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}")
    left = [rich.progress.TextColumn("ETA"), rich.progress.TimeRemainingColumn()]
    if width < WIDE:
        return [step, *left, numbers]
    return [step, rich.progress.BarColumn(bar_width=width - WIDE + 12), *left, numbers]


@contextlib.contextmanager
def unbroken(screen: rich.console.Console) -> Iterator[None]:
    """Returns a context in which a closed output silences the console; rich itself would exit the process."""
    try:
        yield
    except (BrokenPipeError, SystemExit, ValueError):  # ValueError: the file has been closed
        screen.quiet = True


def summary_line(numbers: Mapping[str, float]) -> str:
    """Returns the five numbers that a person watches, those that are there, in a fixed order."""
    memory = numbers.get("device_memory_peak_bytes") or numbers.get("memory_rss_bytes")
    rate = numbers.get("tokens_per_second")
    parts = [f"{label} {short(numbers[name])}" for name, label in _SHOWN.items() if name in numbers]
    if rate is not None:
        parts.append(f"{rate:,.0f} tokens/s")
    if memory is not None:
        parts.append(f"{memory / 1e9:.2f} GB")
    return "  ".join(parts)


def short(number: float) -> str:
    """Returns a number with four significant digits, in the notation that is shorter to read."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    return f"{number:.2e}" if abs(number) < 1e-3 or abs(number) >= 1e6 else f"{number:.4g}"


def duration(seconds: float) -> str:
    """Returns seconds as `m:ss`, `h:mm:ss` or `3d 04:05:06`."""
    whole = round(max(0.0, seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02d}:{minutes:02d}:{left:02d}"
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


_SHOWN = {"loss": "loss", "learning_rate": "lr", "grad_norm": "grad"}
