"""A bar on stderr while a file is read, checked or scored; nothing where stderr is no terminal."""

from collections.abc import Callable, Iterator
import contextlib


class Told:
    """What the bar is told."""

    def __init__(self, progress, rules: int) -> None:
        self.progress = progress
        self.reading = progress.add_task("reading", total=None)
        self.counting = progress.add_task("counting tokens", total=None, visible=False)
        self.checking = progress.add_task("checking", total=rules, visible=False)

    def row(self) -> None:
        """Counts a row as read."""
        self.progress.advance(self.reading)

    def counted(self, done: int, total: int) -> None:
        """Says of how many rows the tokens are counted; the bar is told every hundred."""
        if done % 100 == 0 or done == total:
            self.progress.update(self.counting, visible=True, completed=done, total=total)

    def rule(self, name: str) -> None:
        """Says which rule runs."""
        self.progress.update(self.checking, visible=True, description=name, advance=1)


@contextlib.contextmanager
def bar(*, quiet: bool) -> Iterator[Told]:
    """Returns a context with a bar, which is gone afterwards."""
    from ftjax.data import check

    with _shown(quiet) as shown:
        yield Told(shown, len(check.rules()) + 1)


@contextlib.contextmanager
def counted(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Returns a context with a bar that is told how many of how many are done."""
    with _shown(quiet) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _shown(quiet: bool):
    from rich import progress
    import rich.console

    console = rich.console.Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description:<34}"), progress.BarColumn(), progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )  # fmt: skip
    return progress.Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal, refresh_per_second=4
    )
