"""What a reward model does on pairs that it was not trained on: how often it is right, where, and how sure it is.

A pair is right where the chosen completion scores higher; equal scores are half right. The margin of two scores is the
logit of the preference, as Bradley and Terry have it. `report` gives numbers, `markdown` a page, `curves` what
`runs.plots.reliability` draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from ftjax.errors import UserError
from ftjax.evals import calibration, statistics

LEVEL = 0.95  # of the intervals
BINS = 10  # of the reliability and its error, about equally filled
ABOUT = 0.1  # lengths are about equal where they differ by at most this share of the longer one
GROUPS = 4  # of given margins, where there are more values than this
LENGTHS = ("chosen is shorter", "about equal", "chosen is longer")

Numbers = Float[np.ndarray, " pairs"]


def report(
    chosen: Numbers,
    rejected: Numbers,
    *,
    chosen_lengths: Numbers,
    rejected_lengths: Numbers,
    margins: Numbers,
    prompts: Int[np.ndarray, " pairs"] | None,
) -> dict[str, Any]:
    """Returns what the scores of pairs say of their reward model, as JSON takes it.

    `margins` are those of the data (0 where none is given); lengths are in tokens; `prompts` numbers the prompts, for
    pairs of one prompt are not independent (None: each has its own). The temperature is fitted on all pairs; the error
    after it is that of each half of the prompts under the temperature of the other half. Both are None where there is
    nothing to fit, as the two scores of every pair are equal. UserError for scores that are
    not finite, or no pairs.
    """
    given = {
        "chosen": chosen,
        "rejected": rejected,
        "chosen_lengths": chosen_lengths,
        "rejected_lengths": rejected_lengths,
        "margins": margins,
    }
    values = {name: np.asarray(value, np.float64) for name, value in given.items()}
    if len({value.shape for value in values.values()}) != 1 or values["chosen"].ndim != 1:
        raise ValueError(f"report: one number a pair, not { ({name: value.shape for name, value in values.items()}) }")
    count = len(values["chosen"])
    if not count:
        raise UserError("there are no held-out pairs to measure the reward model on")
    both = np.concatenate([values["chosen"], values["rejected"]])
    broken = int(np.sum(~np.isfinite(both)))
    if broken:
        raise UserError(f"{broken} of {len(both)} held-out scores are not finite; the reward model has diverged")
    clusters = np.arange(count) if prompts is None else np.unique(np.asarray(prompts), return_inverse=True)[1]
    gaps = values["chosen"] - values["rejected"]
    longer = values["chosen_lengths"] - values["rejected_lengths"]
    right = (np.sign(gaps) + 1) / 2
    share = lambda mask: _share(right[mask], clusters[mask])
    every = np.ones(count, bool)
    lengths = np.concatenate([values["chosen_lengths"], values["rejected_lengths"]])
    return {
        "pairs": count,
        "prompts": len(np.unique(clusters)),
        "accuracy": share(every),
        "ties": int(np.sum(gaps == 0)),
        "loss": float(np.mean(np.logaddexp(0, -gaps))),
        "mean_margin": float(gaps.mean()),
        "by_margin": [{"margin": name, **share(mask)} for name, mask in _by_margin(values["margins"])],
        "by_length": [
            {"length": name, **share(mask)}
            for name, mask in _by_length(values["chosen_lengths"], values["rejected_lengths"])
        ],
        **_calibration(gaps, clusters),
        "length": {
            "chosen_is_longer": _share((np.sign(longer) + 1) / 2, clusters),
            "pearson": statistics.pearson(both, lengths),
            "spearman": statistics.spearman(both, lengths),
            "pearson_of_differences": statistics.pearson(gaps, longer),
            "spearman_of_differences": statistics.spearman(gaps, longer),
        },
    }


def _share(right: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    found = statistics.share(right, clusters, level=LEVEL)
    return {
        "accuracy": found.value if found.of else None,
        "low": found.low,
        "high": found.high,
        "pairs": found.of,
    }


def _by_margin(margins: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Returns the pairs by the margin of the data: one group a value, or about equal groups; none if all are alike."""
    known = np.unique(margins)
    if len(known) < 2:
        return []
    if len(known) <= GROUPS:
        return [(f"{value:g}", margins == value) for value in known]
    starts = np.unique([part[0] for part in np.array_split(np.sort(margins), GROUPS)])
    place = np.searchsorted(starts, margins, side="right") - 1
    groups = [(place == number) for number in np.unique(place)]
    return [(f"{margins[own].min():.3g} to {margins[own].max():.3g}", own) for own in groups]


def _by_length(chosen: np.ndarray, rejected: np.ndarray) -> list[tuple[str, np.ndarray]]:
    near = np.abs(chosen - rejected) <= ABOUT * np.maximum(chosen, rejected)
    return list(zip(LENGTHS, (~near & (chosen < rejected), near, ~near & (chosen > rejected)), strict=True))


def _calibration(gaps: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    before = calibration.equal_mass(gaps, bins=BINS)
    half = clusters % 2 == 0
    scaled = gaps.copy()
    apart = gaps[half].any() and gaps[~half].any()
    for own in (half, ~half) if apart else ():
        scaled[own] /= calibration.temperature(gaps[~own])
    after = calibration.equal_mass(scaled, bins=BINS) if apart else None
    return {
        "ece": calibration.expected_error(before),
        "ece_by_chance": calibration.chance_error(before),
        "temperature": calibration.temperature(gaps) if gaps.any() else None,
        "ece_after_temperature": None if after is None else calibration.expected_error(after),
        "reliability": _bins(before, gaps, clusters),
        "reliability_after_temperature": None if after is None else _bins(after, scaled, clusters),
    }


def _bins(found: Sequence[calibration.Bin], gaps: np.ndarray, clusters: np.ndarray) -> list[dict[str, Any]]:
    right = (np.sign(gaps) + 1) / 2
    ends = np.cumsum([one.pairs for one in found])[:-1]
    held = np.split(np.argsort(np.abs(gaps), kind="stable"), ends)  # bins follow each other in confidence
    return [
        {"confidence": one.confidence, **_share(right[own], clusters[own])}
        for one, own in zip(found, held, strict=True)
    ]


def curves(found: Mapping[str, Any]) -> dict[str, list[tuple[float, float, int]]]:
    """Returns the lines of the reliability diagram of a report: as it is, and after its temperature."""
    lines = {"reward model": found["reliability"]}
    if found["reliability_after_temperature"] is not None:
        lines[f"at temperature {found['temperature']:.2f}"] = found["reliability_after_temperature"]
    return {name: [(b["confidence"], b["accuracy"], b["pairs"]) for b in bins] for name, bins in lines.items()}


def markdown(found: Mapping[str, Any], *, title: str) -> str:
    """Returns a report as a page."""
    length = found["length"]
    whole = found["accuracy"]
    lines = [
        f"# {title}",
        "",
        f"{found['pairs']:,} held-out pairs of {found['prompts']:,} prompts; intervals are of {LEVEL:.0%} (Wilson, by "
        "prompt).",
        "",
        "| | |",
        "|---|---|",
        f"| accuracy | {_shown(whole)} |",
        f"| loss | {found['loss']:.4f} |",
        f"| mean margin | {found['mean_margin']:.4f} |",
        f"| calibration error, {len(found['reliability'])} bins | {found['ece']:.4f} (by chance "
        f"{found['ece_by_chance']:.4f}) |",
        f"| temperature | {_sure(found['temperature'])} |",
        f"| calibration error at the temperature of the other half | {_number(found['ece_after_temperature'])} |",
        f"| correlation of score and length | {_number(length['pearson'])} (ranks {_number(length['spearman'])}) |",
        f"| within pairs | {_number(length['pearson_of_differences'])} (ranks "
        f"{_number(length['spearman_of_differences'])}) |",
        f"| accuracy of the rule that longer is better | {_shown(length['chosen_is_longer'])} |",
    ]
    for name, rows in (("margin", found["by_margin"]), ("length", found["by_length"])):
        if rows:
            head = "margin in the data" if name == "margin" else "length"
            lines += ["", f"| {head} | pairs | accuracy |", "|---|--:|---|"]
            lines += [f"| {row[name]} | {row['pairs']:,} | {_shown(row)} |" for row in rows]
    lines += ["", "| says | pairs | is right |", "|---|--:|---|"]
    lines += [f"| {row['confidence']:.3f} | {row['pairs']:,} | {_shown(row)} |" for row in found["reliability"]]
    return "\n".join(lines) + "\n"


def _sure(temperature: float | None) -> str:
    if temperature is None:
        return "- (the two scores of every pair are equal: nothing can be said)"
    if not 1.01e-3 < temperature < 0.99e3:  # the ends of what is tried
        words = "never wrong: none is too low" if temperature < 1 else "no mean margin above 0: none is too high"
        return f"{temperature:.3g} ({words})"
    words = "too sure" if temperature > 1 else "not sure enough" if temperature < 1 else "as sure as it may be"
    return f"{temperature:.3f} ({words})"


def _shown(found: Mapping[str, Any]) -> str:
    return "-" if not found["pairs"] else f"{found['accuracy']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
