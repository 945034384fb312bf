"""What a reproduction returns: one line a rule, with what was expected and what came out."""

from collections.abc import Iterable
from typing import NamedTuple


class Check(NamedTuple):
    """One rule. `passed` None is a number that is reported and bound to nothing."""

    what: str
    expected: str
    measured: str
    passed: bool | None

    @property
    def verdict(self) -> str:
        """Returns the word for it."""
        return {True: "PASS", False: "FAIL", None: "report"}[self.passed]


def table(checks: Iterable[Check]) -> str:
    """Returns the checks as a Markdown table."""
    rows = [f"| {c.what} | {c.expected} | {c.measured} | {c.verdict} |" for c in checks]
    return "\n".join(["| what | expected | measured | |", "|---|---|---|---|", *rows]) + "\n"


def near(what: str, expected: float, measured: float, share: float) -> Check:
    """Returns whether a number is within a share of the one expected."""
    off = measured / expected - 1
    return Check(what, f"{expected:g} ± {share:.0%}", f"{measured:.5f} ({off:+.1%})", abs(off) <= share)
