"""Mixed precision under a budget of bytes: which weight gets which of its choices."""

from collections.abc import Mapping
from typing import NamedTuple


class Choice(NamedTuple):
    """One way to hold a weight: what it takes, and what it harms."""

    nbytes: int
    harm: float  # what the model loses when this weight alone is held so; 0: nothing


def greedy(choices: Mapping[str, Mapping[str, Choice]], nbytes: int) -> dict[str, str]:
    """Returns the name of a choice for each weight, so that together they take at most `nbytes`.

    All begin at their smallest. Then, again and again, the change that undoes most harm for each byte that it adds is
    made, as long as one fits: the greedy rule for a knapsack with choices. Harms are taken to add up. Raises ValueError
    where the smallest choices do not fit.
    """
    taken = {weight: min(ways, key=lambda name: ways[name]) for weight, ways in choices.items()}
    left = nbytes - sum(choices[weight][name].nbytes for weight, name in taken.items())
    if left < 0:
        raise ValueError(f"the smallest choices take {-left} bytes too many")
    while True:
        gains = []
        for weight, ways in choices.items():
            now = ways[taken[weight]]
            for name, way in ways.items():
                more, undone = way.nbytes - now.nbytes, now.harm - way.harm
                if 0 < more <= left and undone > 0:
                    gains.append((undone / more, weight, name, more))
        if not gains:
            return taken
        _, weight, name, more = max(gains)
        taken[weight], left = name, left - more
