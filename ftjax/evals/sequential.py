"""A comparison that may be looked at after every vote: p-values that hold whenever one stops."""

import math

from jaxtyping import Float
import numpy as np


def always_valid(
    values: Float[np.ndarray, "... n"], *, against: float, variance: float, spread: float
) -> Float[np.ndarray, "... n"]:
    """Returns the p after each value that their mean is `against`; it never rises, and any stopping rule may use it.

    The mixture sequential probability ratio test (Johari et al. 2015, arXiv 1512.04922, equation 5): under a normal
    prior on the mean with standard deviation `spread`, L_n = sqrt(V / (V + n t^2)) exp(n^2 t^2 (mean - m)^2 / (2 V (V +
    n t^2))), and p is the least 1 / L so far. `variance` is that of one value: .25 for votes of 0 and 1 around one
    half. A spread of .1 finds a share of .6 after about as many votes as a test of fixed size.
    """
    if not (variance > 0 and spread > 0):
        raise ValueError(f"always_valid: variance {variance} and spread {spread} are above 0")
    count = np.arange(1, values.shape[-1] + 1)
    mean = np.cumsum(values, axis=-1) / count
    wide = variance + count * spread**2
    log_ratio = 0.5 * (math.log(variance) - np.log(wide)) + (count * spread * (mean - against)) ** 2 / (
        2 * variance * wide
    )
    return np.exp(-np.maximum.accumulate(np.maximum(log_ratio, 0.0), axis=-1))
