"""Scores of a file in words, and as one picture."""

from collections.abc import Iterator

import numpy as np

from ftjax.data import plots_svg, rows
from ftjax.data.scores import Scores

_SHOWN = 3  # rows that a sentence names
_PANELS = {  # of the picture: column, title
    "nll_per_token": "NLL of the answer, nats a token",
    "ifd": "IFD: NLL with the prompt over NLL without",
    "learning_value": "learning value",
    "pass_rate": "pass rate",
    "outlier": "distance to the nearest rows",
    "rejected_nll_per_token": "NLL of the rejected answer, nats a token",
}


def summary(scores: Scores) -> list[str]:
    """Returns what the scores come to, a sentence a line."""
    return list(_told(scores))


def _told(scores: Scores) -> Iterator[str]:
    count, scored = len(scores.where), scores.scored
    told = scores.manifest
    if not scored.all():
        first = next(why for why in scores.why if why is not None)
        yield f"{np.sum(~scored):,} of {count:,} rows have no scores; the first: {first}"
    tried = ~np.isnan(scores.values["handled"])
    if tried.any():
        done = int(np.nansum(scores.values["handled"]))
        means = f"{told['metric']}, greedy"
        yield f"{done:,} of {tried.sum():,} rows the base already answers ({means}); {tried.sum() - done:,} are left"
    if np.isfinite(scores.values["pass_rate"]).any():
        rate = scores.values["pass_rate"]
        always, never = int(np.sum(rate == 1)), int(np.sum(rate == 0))
        right = f"{np.nanmean(rate):.1%} of {told['samples']} samples a row are right"
        yield f"{right}; {always:,} rows pass always, {never:,} never"
    pairs = scores.values["prefers_chosen"]
    if np.isfinite(pairs).any():
        known = int(np.isfinite(pairs).sum())
        yield f"in {int(np.nansum(pairs)):,} of {known:,} pairs the chosen answer is the likelier one already"
    nll = scores.values["nll_per_token"]
    if scored.any():
        total = np.nansum(scores.values["nll"]) / np.nansum(scores.values["tokens"])
        middle = f"half the rows are below {np.nanmedian(nll):.3f}"
        yield f"NLL {total:.3f} nats a token; {middle}; most: {_most(scores, nll)}"
    ifd = scores.values["ifd"]
    if np.isfinite(ifd).any():
        useless = int(np.sum(ifd >= 1))
        middle = f"half the rows are below {np.nanmedian(ifd):.2g}"
        yield f"IFD: {middle}; {useless:,} are at 1 or above, where the prompt does not help"
    if np.isfinite(scores.values["outlier"]).any():
        yield f"farthest from all others: {_most(scores, scores.values['outlier'])}"


def _most(scores: Scores, values: np.ndarray) -> str:
    """Returns the rows of the largest values, by line."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:_SHOWN]
    return ", ".join(f"line {rows.number(scores.where[n])} ({values[n]:.2f})" for n in order if np.isfinite(values[n]))


def picture(scores: Scores) -> str:
    """Returns histograms of the scores that the rows have, as one SVG file."""
    shown = {title: scores.values[name] for name, title in _PANELS.items() if np.isfinite(scores.values[name]).any()}
    return plots_svg.panels({title: plots_svg.bars(values) for title, values in shown.items()})
