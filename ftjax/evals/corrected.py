"""The win rate that people would give, from a judge that errs and some pairs that people have judged as well."""

import math
import statistics
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np

from ftjax.evals import sign_flips


class Corrected(NamedTuple):
    """A corrected win rate with its interval, and what it rests on."""

    value: float
    low: float
    high: float
    of_wins: float  # mean score that the judge gives where people prefer a; 1 if it never errs
    of_losses: float  # where they prefer b; 0 if it never errs
    labelled: int


def rogan_gladen(
    scores: Float[np.ndarray, " n"],
    human: Float[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None = None,
    *,
    level: float,
) -> Corrected | None:
    """Returns the share of pairs in which people would prefer a, (mean - m0) / (m1 - m0) (Rogan and Gladen 1978).

    `scores` are the judge's: 1 for a, .5 for a tie, 0 for b. `human` is 1 or 0 where people have decided, NaN where
    they have not been asked or see a tie. m1 and m0 are the judge's mean scores on either kind, so that errors of any
    form are corrected, ties by a bias of position too, as far as they are the same in the other pairs. The interval is
    that of the linearised estimate, which knows that pairs with labels are among all pairs, and which of them belong
    together (`clusters`; None: each is apart). None where the judge does not tell the two kinds apart, or one has fewer
    than two pairs.
    """
    scores, human = np.asarray(scores, np.float64), np.asarray(human, np.float64)
    if scores.shape != human.shape:
        raise ValueError(f"rogan_gladen: {scores.shape} scores and {human.shape} of people")
    wins, losses = human == 1, human == 0
    if min(wins.sum(), losses.sum()) < 2:
        return None
    of_wins, of_losses = float(scores[wins].mean()), float(scores[losses].mean())
    slope = of_wins - of_losses
    if slope <= 0:
        return None
    value = (float(scores.mean()) - of_losses) / slope
    drawn = scores - scores.mean()
    drawn[wins] -= value * (scores[wins] - of_wins) / wins.mean()
    drawn[losses] -= (1 - value) * (scores[losses] - of_losses) / losses.mean()
    sums = drawn if clusters is None else sign_flips.sums_of(drawn, clusters)[0]
    if len(sums) == 1:
        return Corrected(min(max(value, 0.0), 1.0), 0.0, 1.0, of_wins, of_losses, int(wins.sum() + losses.sum()))
    error = float(sums.std(ddof=1)) * math.sqrt(len(sums)) / len(scores) / slope
    half = statistics.NormalDist().inv_cdf((1 + level) / 2) * error
    share, low, high = (min(max(end, 0.0), 1.0) for end in (value, value - half, value + half))
    return Corrected(share, low, high, of_wins, of_losses, int(wins.sum() + losses.sum()))
