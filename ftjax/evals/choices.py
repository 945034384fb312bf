"""Questions with given choices: which one a model finds likeliest, and how sure it is of it."""

from collections.abc import Sequence

import numpy as np

from ftjax.evals import calibration, metric

Logps = Sequence[Sequence[float]]  # of each choice after its question, summed over its tokens, in nats


def accuracy(logps: Logps, answers: Sequence[int]) -> metric.Score:
    """Returns how often the right choice is the likeliest (the harness's acc); `answers` are places from 0. It leans to
    short choices."""
    return _accuracy([np.asarray(one, np.float64) for one in logps], answers, "largest log-probability")


def normalised_accuracy(logps: Logps, answers: Sequence[int], choices: Sequence[Sequence[str]]) -> metric.Score:
    """Returns how often the right choice has the largest log-probability a character (the harness's acc_norm)."""
    metric.check("choices", logps, choices)
    sizes = [[max(len(text), 1) for text in own] for own in choices]
    each = [np.asarray(one, np.float64) / size for one, size in zip(logps, sizes, strict=True)]
    return _accuracy(each, answers, "largest log-probability a character")


def reliability(logps: Logps, answers: Sequence[int], *, bins: int) -> list[calibration.Bin]:
    """Returns bins of equal width over confidences from 0 to 1: the softmax of the likeliest choice over all choices of
    its question, and how often it is right; `calibration.expected_error` of them is the ECE (Guo et al. 2017)."""
    metric.check("choices", logps, answers)
    rows = [np.asarray(one, np.float64) for one in logps]
    sure = np.array([1 / np.sum(np.exp(row - row.max())) for row in rows])
    right = np.array([float(np.argmax(row) == answer) for row, answer in zip(rows, answers, strict=True)])
    return calibration.equal_width(sure, right, least=0.0, bins=bins)


def _accuracy(scores: Sequence[np.ndarray], answers: Sequence[int], how: str) -> metric.Score:
    metric.check("choices", scores, answers)
    for row, answer in zip(scores, answers, strict=True):
        if not (0 <= answer < len(row) and np.isfinite(row).all()):
            raise ValueError(f"choices: answer {answer} of {len(row)} choices with the scores {row}")
    right = [float(int(np.argmax(row)) == answer) for row, answer in zip(scores, answers, strict=True)]
    return metric.mean(right, f"accuracy of choices|{how}|first of equals")
