"""length: the completion has as many tokens as it should, or not too many."""

from collections.abc import Sequence

from ftjax.errors import UserError


def check(*, length_target: int, length_cap: int) -> None:
    """Raises where neither is given, or they contradict each other."""
    if min(length_target, length_cap) < 0 or not (length_target or length_cap):
        raise UserError(
            f"the reward 'length': length_target is {length_target} and length_cap {length_cap}; give one of them, or "
            "both, a number of tokens"
        )
    if 0 < length_cap < length_target:
        raise UserError(
            f"the reward 'length': length_target {length_target} is above length_cap {length_cap}, where the score is 0"
        )


def score(*, tokens: Sequence[int], length_target: int, length_cap: int) -> list[float | None]:
    """Returns max(0, 1 - |tokens - target| / target), and 0 above the cap; a target or cap of 0 means none."""
    return [_score(count, length_target, length_cap) for count in tokens]


def _score(count: int, target: int, cap: int) -> float:
    if 0 < cap < count:
        return 0.0
    return max(0.0, 1.0 - abs(count - target) / target) if target else 1.0
