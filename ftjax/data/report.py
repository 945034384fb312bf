"""What encoding did to a data file, in numbers and as text: nothing is cut or left out silently."""

import dataclasses
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)
_BINS = 12
_BAR = 40


@dataclasses.dataclass(frozen=True)
class EncodeReport:
    """Counts of rows and tokens. Lengths, percentiles and histogram are of rows in full, before anything is cut."""

    rows: int  # read
    kept: int
    dropped: int  # longer than max_length, left out
    emptied: int  # left out because the cut took the whole answer
    truncated: int  # kept, but cut
    tokens: int  # of the kept rows
    trained_tokens: int
    max_length: int | None
    rewritten_turns: int  # earlier answers that the template shows without its own scaffold (see `chat`)
    special_in_text: int  # rows whose text holds the writing of a special token, which is read as that token
    shortest: int
    longest: int
    mean: float
    percentiles: dict[str, int]
    histogram: list[tuple[int, int, int]]  # (first length, last length, rows)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # by "file:line", why; not in `as_dict`
    from_cache: bool = dataclasses.field(default=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON-ready values."""
        found = dataclasses.asdict(self)
        del found["from_cache"], found["left_out"]
        return found

    def as_text(self) -> str:
        """Returns the report for the console: counts, then one bar a range of lengths."""
        lines = [
            f"rows       {self.rows:,} read, {self.kept:,} kept"
            + (f", {self.dropped:,} dropped (longer than {self.max_length})" if self.dropped else "")
            + (f", {self.emptied:,} dropped (cut before the answer)" if self.emptied else "")
            + (f", {self.truncated:,} truncated to {self.max_length}" if self.truncated else ""),
            f"tokens     {self.tokens:,}, trained on {self.trained_tokens:,} ({self.trained_tokens / self.tokens:.1%})",
            f"lengths    {self.shortest} to {self.longest}, mean {self.mean:.1f}, "
            + ", ".join(f"{name} {value}" for name, value in self.percentiles.items()),
        ]
        lines += notes(self.rewritten_turns, self.special_in_text)
        return "\n".join([*lines, *bars(self.histogram, max_length=self.max_length)])


def cached(values: dict[str, Any], left_out: dict[str, str]) -> EncodeReport:
    """Returns the report whose `as_dict` and `left_out` lay in the cache."""
    bins = [(first, last, count) for first, last, count in values["histogram"]]
    return EncodeReport(**{**values, "histogram": bins}, left_out=left_out, from_cache=True)


@dataclasses.dataclass
class Counts:
    """Counts while rows go by; `done` makes the report."""

    max_length: int | None
    dropped: int = 0
    emptied: int = 0
    truncated: int = 0
    kept: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    rewritten: int = 0
    special: int = 0
    lengths: list[int] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def see(self, length: int, *, rewritten: int, holds_special: bool) -> None:
        """Counts a row as it was read."""
        self.lengths.append(length)
        self.rewritten += rewritten
        self.special += holds_special

    def keep(self, mask: np.ndarray) -> None:
        """Counts a row as it is kept."""
        self.kept += 1
        self.tokens += len(mask)
        self.trained_tokens += int(mask.sum())

    def done(self) -> EncodeReport:
        """Returns the report of all rows seen, of which there must be one."""
        lengths = np.array(self.lengths)
        return EncodeReport(
            rows=len(lengths),
            kept=self.kept,
            dropped=self.dropped,
            emptied=self.emptied,
            truncated=self.truncated,
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            max_length=self.max_length,
            rewritten_turns=self.rewritten,
            special_in_text=self.special,
            shortest=int(lengths.min()),
            longest=int(lengths.max()),
            mean=float(lengths.mean()),
            percentiles=percentiles(lengths),
            histogram=histogram(lengths),
            left_out=self.left_out,
        )


def notes(rewritten: int, special: int) -> list[str]:
    """Returns what a user should know of texts that a template or the tokenizer takes otherwise."""
    lines = []
    if rewritten:
        lines.append(f"note       {rewritten:,} earlier answers are shown by the template without its scaffold")
    if special:
        lines.append(f"note       {special:,} rows hold text that the tokenizer reads as a special token")
    return lines


def percentiles(lengths: np.ndarray) -> dict[str, int]:
    """Returns lengths, of which so many in a hundred are not longer."""
    return {f"p{p}": int(np.percentile(lengths, p, method="higher")) for p in PERCENTILES}


def bars(counted: list[tuple[int, int, int]], *, max_length: int | None) -> list[str]:
    """Returns one line with a bar for each range of a histogram."""
    most = max(count for _, _, count in counted)
    width = len(f"{counted[-1][1]}")
    lines = []
    for first, last, count in counted:
        bar = "█" * max(round(_BAR * count / most), 1 if count else 0)
        cut = "  > max_length" if max_length is not None and first > max_length and count else ""
        lines.append(f"{first:>{width}}-{last:<{width}} {bar} {count:,}{cut}")
    return lines


def histogram(lengths: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns at most 13 ranges of equal, round width, the first and last of them not empty."""
    spread = int(lengths.max() - lengths.min()) + 1
    raw = max(spread / _BINS, 1)
    magnitude = 10 ** int(np.floor(np.log10(raw)))
    width = next(int(m * magnitude) for m in (1, 2, 5, 10) if m * magnitude >= raw)
    first = int(lengths.min()) // width
    counts = np.bincount(lengths // width - first)
    return [((first + i) * width, (first + i + 1) * width - 1, int(count)) for i, count in enumerate(counts)]
