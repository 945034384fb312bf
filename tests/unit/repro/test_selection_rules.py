"""The rule of the experiment on selection passes where results are the same, and fails where they are not."""

import json

import numpy as np
import pytest

from tests import bases

selection = bases.script("repro/selection.py")
ARMS = ("all", "unhandled", "IFD", "random", selection.PASSES)


def marks(share, seed, rows=400):
    """Marks of three seeds, [3, rows]."""
    return (np.random.default_rng(seed).random((3, rows)) < share).astype(float)


def test_the_same_marks_pass_and_a_tenth_fewer_right_answers_fail():
    same = marks(0.5, 0)
    told = selection.compared(dict.fromkeys(ARMS, same))
    assert [one.passed for one in told] == [True, None, None, None]
    assert told[0].measured == "+0.000 (+0.000 to +0.000)"
    worse = selection.compared(dict.fromkeys(ARMS, same) | {"unhandled": same * (marks(0.8, 1))})
    assert worse[0].passed is False


def test_a_difference_is_paired_by_row():
    a = marks(0.5, 0)
    b = np.maximum(a, marks(0.1, 1))
    value, low, high = selection.difference(a, b)
    assert value == pytest.approx((b - a).mean())
    assert low > 0  # unpaired, 400 rows would not tell .5 from .55
    assert high - low < 0.05


def test_the_file_of_the_world_has_what_the_base_knows_and_what_it_does_not(tmp_path):
    task = selection.world(tmp_path)
    rows = [json.loads(line) for line in task.train.read_text().splitlines()]
    assert len(rows) == 1000
    assert {row["task"] for row in rows} == set(selection.TRAIN)
    assert len(task.groups) == sum(selection.HELD.values())
    again = selection.world(tmp_path)
    assert again.train.read_text().splitlines() == [json.dumps(row) for row in rows]
