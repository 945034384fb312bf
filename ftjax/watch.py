"""What a run that learns from its own samples is told on its way: tables of completions, and alarms."""

from collections.abc import Callable, Mapping

from ftjax.held_out_prompts import REWARD
from ftjax.rl.rollout import Drawn
from ftjax.runs.writers import Several

# Of the first update after a rollout, before which nothing has moved (26); rounding in float32 gives 1e-12.
FIRST_KL = 1e-4
LONGER = 2.0  # times as long as completions of the first steps
STEPS = 5  # whose mean a later one is compared with
SHOWN = 8  # completions of a table


class Watch:
    """Looks at the numbers of steps and evaluations, and says once what is wrong with each kind."""

    def __init__(self, say: Callable[[str], None], before: Mapping[str, float]) -> None:
        self._say, self._before = say, before
        self._said: set[str] = set()
        self._scores: list[float] = []
        self._lengths: list[float] = []

    def step(
        self, number: int, numbers: Mapping[str, float], drawn: Drawn | None, out: Several, every: int
    ) -> None:  # fmt: skip
        """Sees the numbers of step `number`, and every so many steps writes the table of what was drawn for it."""
        if drawn is None:
            return
        if numbers.get("policy/approxkl_first", 0.0) > FIRST_KL:
            self._once(
                "first",
                f"warning: in step {number} the first update began {numbers['policy/approxkl_first']:.3g} nats a token "
                "away from the policy of the rollout, where it should be 0: the two forward passes do not agree. Take "
                "config.model.dtype=float32 to see whether it is rounding",
            )
        if drawn.failures:
            first = drawn.failures[0]
            self._once(
                f"failed {first.term}",
                f"warning: the reward {first.term} failed in step {number}, which has {len(drawn.failures)} such "
                f"completions; they do not count. The first: {first.why} (prompt {first.prompt[:60]!r})",
            )
        self._scores.append(numbers.get("objective/scores", 0.0))
        self._lengths.append(numbers.get("completions/mean_length", 0.0))
        if len(self._lengths) > 2 * STEPS and _mean(self._lengths[-STEPS:]) > LONGER * _mean(self._lengths[:STEPS]):
            self._once(
                "length",
                f"warning: completions are {LONGER:g} times as long as at the start ({_mean(self._lengths[:STEPS]):.0f}"
                f" -> {_mean(self._lengths[-STEPS:]):.0f} tokens): see whether the reward pays for length",
            )
        if every and number % every == 0:
            out.text(number, "completions", drawn.table[:SHOWN])

    def evaluated(self, numbers: dict[str, float]) -> dict[str, float]:
        """Returns the numbers of an evaluation, after a warning where the reward rises and the held-out score falls."""
        if REWARD not in numbers or REWARD not in self._before:
            return numbers
        if len(self._scores) >= 2 * STEPS:
            first, last = _mean(self._scores[:STEPS]), _mean(self._scores[-STEPS:])
            if last > first and numbers[REWARD] < self._before[REWARD]:
                self._once(
                    "hacking",
                    f"warning: the reward rises ({first:.3g} -> {last:.3g}) while the held-out score falls "
                    f"({self._before[REWARD]:.3g} -> {numbers[REWARD]:.3g}): the policy exploits its reward. Raise "
                    "config.loss.kl_coefficient, or mend the reward",
                )
        return numbers

    def _once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._say(text)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
