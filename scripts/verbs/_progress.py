"""A bar on stderr while a file is read and checked; nothing where stderr is no terminal."""

from collections.abc import Iterator
import contextlib


class Told:
    """What the bar is told."""

    def __init__(self, progress, rules: int) -> None:
        self.progress = progress
        self.reading = progress.add_task("reading", total=None)
        self.checking = progress.add_task("checking", total=rules, visible=False)

    def row(self) -> None:
        """Counts a row as read."""
        self.progress.advance(self.reading)

    def rule(self, name: str) -> None:
        """Says which rule runs."""
        self.progress.update(self.checking, visible=True, description=name, advance=1)


@contextlib.contextmanager
def bar(*, quiet: bool) -> Iterator[Told]:
    """Returns a context with a bar, which is gone afterwards."""
    from rich import progress
    import rich.console

    from ftjax.data import check

    console = rich.console.Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description:<34}"), progress.BarColumn(), progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )  # fmt: skip
    shown = progress.Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal, refresh_per_second=4
    )
    with shown:
        yield Told(shown, len(check.rules()) + 1)
