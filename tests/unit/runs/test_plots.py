"""Every run can be drawn, a broken one too."""

import numpy as np
from PIL import Image
import pytest

from ftjax.runs import jsonl, plots


def write(folder, rows):
    lines = jsonl.Jsonl(folder)
    for step, numbers in rows:
        lines.write(step, numbers)
    lines.close({})
    return folder / "metrics.jsonl"


def training(steps, evals=True):
    random = np.random.default_rng(0)
    for step in range(1, steps + 1):
        numbers = {
            "loss": 3 * np.exp(-step / 60) + 0.4 + 0.1 * random.standard_normal(),
            "learning_rate": 1e-3 * min(step / 20, 1) * (1 - step / (steps + 1)),
            "grad_norm": float(np.exp(random.standard_normal())),
            "tokens_per_second": 2000 + 50 * random.standard_normal(),
        }
        yield step, numbers
        if evals and step % 25 == 0:
            yield step, {"eval_loss": 3 * np.exp(-step / 70) + 0.5, "eval/exact_match": step / steps, "eval_rouge": 0.3}


def colours(path):
    """Returns the number of pixels of a plot that are neither white, grey nor black: its lines and marks."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((pixels.max(axis=-1) - pixels.min(axis=-1) > 60).sum())


def test_a_run_is_drawn_with_a_line_in_every_picture(tmp_path):
    written = plots.draw(write(tmp_path, training(200)), tmp_path / "plots")
    names = ["loss.png", "learning_rate.png", "grad_norm.png", "throughput.png", "eval.png"]
    assert [path.name for path in written] == names
    assert all(colours(path) > 500 for path in written)


nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    "columns",
    [
        {"loss": [1.0], "grad_norm": [0.0], "learning_rate": [nan], "eval_x": [-inf]},
        {
            "loss": [inf, nan, -inf],
            "grad_norm": [1e-30, 1e30, nan],
            "learning_rate": [-1.0, 0.0, 5.0],
            "eval_x": [0.0] * 3,
        },
        {"loss": [1.0, nan, 2.0] * 30, "grad_norm": [0.0, nan, -3.0] * 30, "tokens_per_second": [inf] * 90},
    ],
)
def test_points_alone_and_numbers_that_are_not_finite_are_drawn(tmp_path, columns):
    rows = [
        (step, dict(zip(columns, row, strict=True))) for step, row in enumerate(zip(*columns.values(), strict=True))
    ]
    written = plots.draw(write(tmp_path, rows), tmp_path / "plots")
    assert len(written) == len(columns)
    assert all(colours(path) > 20 for path in written)


def test_a_run_without_numbers_has_no_pictures(tmp_path):
    assert plots.draw(write(tmp_path, []), tmp_path / "plots") == []
    assert plots.draw(write(tmp_path, [(1, {"something_else": 1.0})]), tmp_path / "plots") == []


def test_a_torn_line_does_not_keep_a_run_from_being_drawn(tmp_path):
    metrics = write(tmp_path, [(1, {"loss": 1.0})])
    with metrics.open("a") as file:
        file.write('{"ste')
    assert len(plots.draw(metrics, tmp_path / "plots")) == 1


def test_the_smoothed_line_neither_lags_nor_follows_a_spike():
    falling = [float(value) for value in range(400, 0, -1)]
    assert plots.smooth(falling) == falling
    spiked = [*falling[:200], 1e9, *falling[201:]]
    assert max(abs(a - b) for a, b in zip(plots.smooth(spiked), falling, strict=True)) <= 1
    assert plots.smooth([5.0]) == [5.0]


def test_curves_are_drawn_as_lines_and_points(tmp_path):
    line, dots = plots.Curve("line", [0, 1, 2], [0, 1, 4], True), plots.Curve("dots", [0.5, 1.5], [1, 2], False)
    draw = lambda *shown: colours(plots.curves(shown, tmp_path / "curves.png", title="t", across="x", unit="y"))
    assert draw(line, dots) > draw(line) > 500


def test_reliability_leaves_bins_without_pairs_out(tmp_path):
    held = [(0.55, 0.5, 40), (0.95, 0.8, 60)]
    drawn = [
        np.asarray(Image.open(plots.reliability({"RM": bins}, tmp_path / "r.png", title="t")))
        for bins in (held, [held[0], (0.0, 0.0, 0), held[1]])
    ]
    np.testing.assert_array_equal(*drawn)
    assert colours(tmp_path / "r.png") > 500
