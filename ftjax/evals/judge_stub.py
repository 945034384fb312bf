"""A judge that needs no model: seeded, with errors of a known kind, to try a file and the report on."""

from collections.abc import Sequence
import hashlib
import random

from ftjax.evals.judge import Messages
from ftjax.evals.replies import Keep, Reply


class Stub:
    """Prefers the answer whose text has the larger hash.

    With probability `first` it takes the one that stands first; else it is right with probability `accuracy`; with
    probability `nonsense` it gives no verdict.
    """

    def __init__(self, *, seed: int, accuracy: float, first: float, nonsense: float) -> None:
        self.seed, self.accuracy, self.first, self.nonsense = seed, accuracy, first, nonsense

    def __call__(self, requests: Sequence[Messages], keep: Keep) -> None:
        """Answers each request."""
        for number, messages in enumerate(requests):
            text = self._answer(messages[-1][1])
            keep(number, Reply(text, len(messages[-1][1].split()), len(text.split())))

    def _answer(self, shown: str) -> str:
        draw = random.Random(f"{self.seed} {shown}")
        if draw.random() < self.nonsense:
            return "Both have their merits."
        if "[Answer of assistant A begins]" not in shown:
            return f"It is what it is. Rating: [[{1 + int(9.999 * self._quality(_between(shown, 'Answer')))}]]"
        a, b = (self._quality(_between(shown, f"Answer of assistant {name}")) for name in "AB")
        right = (a > b) == (draw.random() < self.accuracy)
        better = "A" if draw.random() < self.first or right else "B"
        return f"One is better than the other. [[{better}]]"

    def _quality(self, text: str) -> float:
        return int(hashlib.sha256(f"{self.seed} {text}".encode()).hexdigest()[:12], 16) / 16**12


def _between(shown: str, name: str) -> str:
    return shown.partition(f"[{name} begins]\n")[2].rpartition(f"\n[{name} ends]")[0]
