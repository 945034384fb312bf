"""What encoding did to preferences, in numbers and as text: nothing is cut or left out silently."""

import dataclasses
from typing import Any

import numpy as np

from ftjax.data import report

Lengths = dict[str, float]  # shortest, longest, mean, and percentiles
KINDS = ("prompt", "completion", "chosen", "rejected")


@dataclasses.dataclass(frozen=True)
class PreferenceReport:
    """Counts of rows, completions, pairs and tokens. Lengths and histogram are of rows before anything is cut."""

    rows: int  # read
    kept: int
    dropped: int  # left out: prompt and longest completion have more than max_length tokens
    emptied: int  # left out: a completion would have been cut, even with the prompt cut to one token
    equal: int  # left out: all its pairs were equal but for white space
    tied: int  # left out: a ranking in which all have the same place
    truncated: int  # kept, with the beginning of the prompt cut off
    completions: int  # of the kept rows
    pairs: int  # of the kept rows
    equal_pairs: int  # left out, of all rows
    labelled: int  # completions of the kept rows that have a label or score
    tokens: int  # of the kept rows: each prompt once, and all completions
    trained_tokens: int
    max_length: int | None
    rewritten_turns: int  # earlier answers that the template shows without its own scaffold (see `chat`)
    special_in_text: int  # rows whose text holds the writing of a special token, which is read as that token
    chosen_longer: float  # share of the pairs whose better completion has more tokens; 0 where there is no pair
    lengths: dict[str, Lengths]  # of `KINDS`; chosen and rejected only where there are pairs
    histogram: list[tuple[int, int, int]]  # (first length, last length, rows), of prompt and longest completion
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # by "file:line", why; not in `as_dict`
    from_cache: bool = dataclasses.field(default=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON-ready values."""
        found = dataclasses.asdict(self)
        del found["from_cache"], found["left_out"]
        return found

    def as_text(self) -> str:
        """Returns the report for the console: counts, then one bar a range of lengths."""
        reasons = {
            f"longer than {self.max_length}": self.dropped,
            f"a completion alone is longer than {self.max_length}": self.emptied,
            "equal completions": self.equal,
            "all ranks tied": self.tied,
        }
        lines = [
            f"rows       {self.rows:,} read, {self.kept:,} kept"
            + "".join(f", {count:,} dropped ({why})" for why, count in reasons.items() if count)
            + (f", {self.truncated:,} with the prompt cut from the left" if self.truncated else ""),
            f"pairs      {self.pairs:,} of {self.completions:,} completions, {self.labelled:,} with a label"
            + (f"; {self.equal_pairs:,} equal pairs left out" if self.equal_pairs else "")
            + (f"; the better one is longer in {self.chosen_longer:.1%}" if self.pairs else ""),
            f"tokens     {self.tokens:,}, trained on {self.trained_tokens:,} ({self.trained_tokens / self.tokens:.1%})",
        ]
        for kind, found in self.lengths.items():
            shares = ", ".join(f"{name} {found[name]:.0f}" for name in found if name.startswith("p"))
            lines.append(
                f"{kind:<10} {found['shortest']:.0f} to {found['longest']:.0f}, mean {found['mean']:.1f}, {shares}"
            )
        lines += report.notes(self.rewritten_turns, self.special_in_text)
        return "\n".join([*lines, *report.bars(self.histogram, max_length=self.max_length)])


def cached(values: dict[str, Any], left_out: dict[str, str]) -> PreferenceReport:
    """Returns the report whose `as_dict` and `left_out` lay in the cache."""
    bins = [(first, last, count) for first, last, count in values["histogram"]]
    return PreferenceReport(**{**values, "histogram": bins}, left_out=left_out, from_cache=True)


@dataclasses.dataclass
class Counts:
    """Counts while rows go by; `done` makes the report."""

    max_length: int | None
    rows: int = 0
    kept: int = 0
    dropped: int = 0
    emptied: int = 0
    equal: int = 0
    tied: int = 0
    truncated: int = 0
    equal_pairs: int = 0
    labelled: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    rewritten: int = 0
    special: int = 0
    longest: list[int] = dataclasses.field(default_factory=list)
    lengths: dict[str, list[int]] = dataclasses.field(default_factory=lambda: {kind: [] for kind in KINDS})
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def see(self, prompt: int, completions: list[int], pairs: list[tuple[int, int]]) -> None:
        """Counts the lengths of a row in full."""
        self.longest.append(prompt + max(completions))
        self.lengths["prompt"].append(prompt)
        self.lengths["completion"] += completions
        self.lengths["chosen"] += [completions[better] for better, _ in pairs]
        self.lengths["rejected"] += [completions[worse] for _, worse in pairs]

    def keep(self, prompt: np.ndarray, masks: tuple[np.ndarray, ...], labels: tuple[float, ...]) -> None:
        """Counts a row as it is kept."""
        self.kept += 1
        self.labelled += int(np.isfinite(labels).sum())
        self.tokens += len(prompt) + sum(len(mask) for mask in masks)
        self.trained_tokens += sum(int(mask.sum()) for mask in masks)

    def done(self, kept_pairs: int, kept_completions: int) -> PreferenceReport:
        """Returns the report of all rows seen, of which one must have been kept."""
        chosen, rejected = np.array(self.lengths["chosen"]), np.array(self.lengths["rejected"])
        return PreferenceReport(
            rows=self.rows,
            kept=self.kept,
            dropped=self.dropped,
            emptied=self.emptied,
            equal=self.equal,
            tied=self.tied,
            truncated=self.truncated,
            completions=kept_completions,
            pairs=kept_pairs,
            equal_pairs=self.equal_pairs,
            labelled=self.labelled,
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            max_length=self.max_length,
            rewritten_turns=self.rewritten,
            special_in_text=self.special,
            chosen_longer=float((chosen > rejected).mean()) if len(chosen) else 0.0,
            lengths={kind: _lengths(np.array(found)) for kind, found in self.lengths.items() if found},
            histogram=report.histogram(np.array(self.longest)),
            left_out=self.left_out,
        )


def _lengths(found: np.ndarray) -> Lengths:
    return {
        "shortest": int(found.min()),
        "longest": int(found.max()),
        "mean": float(found.mean()),
        **report.percentiles(found),
    }
