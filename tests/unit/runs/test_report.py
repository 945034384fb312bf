"""What a run says at its end of what changed."""

from pathlib import Path
import shlex

import pytest

from ftjax.runs import report

AFTER = {"eval_score": 0.845, "eval_loss": 0.05, "eval_perplexity": 1.05, "eval_retention_loss": 1.86}
SCORE = {"before": 0.0, "after": 0.845, "value": 0.845, "low": 0.79, "high": 0.89, "p": 1e-9, "of": 200}
LOSS = {"before": 1.83, "after": 1.86, "value": 0.03, "low": -0.01, "high": 0.04, "p": 0.21, "of": 12}
FLIPS = {"of": "score", "won": 169, "lost": 0, "ids": {}}


def said(**change):
    return report.changed({"after": AFTER, "change": change})


def test_a_difference_has_its_interval_its_p_and_the_flips():
    assert said(held_out={"score": SCORE, "flips": FLIPS, "words": ""}) == [
        "right answers: 0 -> 0.845, +0.845 (0.79 to 0.89, p < 0.001); 169 won, 0 lost"
    ]


def test_a_retention_loss_is_called_so_and_an_interval_with_0_in_it_undecided():
    assert said(retention={"loss": LOSS}) == [
        "retention loss: 1.83 -> 1.86, +0.03 (-0.01 to 0.04, p = 0.21, only 12 rows), undecided"
    ]


def test_what_has_no_interval_is_told_without_one():
    ends = {"low": -float("inf"), "high": float("inf")}
    assert said(held_out={"loss": LOSS | ends}) == [
        "loss, nats a token: 1.83 -> 1.86, +0.03 (unknown, p = 0.21, only 12 rows), undecided"
    ]
    assert said(held_out={"loss": {"before": 1.0, "after": float("nan"), "of": 3}}) == ["loss, nats a token: 1 -> nan"]
    assert said() == []


def test_scores_and_pairs_have_the_names_of_the_table():
    after = {"eval_reward": 1.0}  # KTO has no accuracy of the whole set, only of rows with both kinds
    change = {"held_out": {"score": SCORE, "accuracy": SCORE}}
    lines = report.changed({"after": after, "change": change})
    assert [line.partition(":")[0] for line in lines] == ["score of its answers", "better one preferred"]


@pytest.mark.parametrize(("reward", "script"), [(False, "scripts/generate.py"), (True, "scripts/score.py")])
def test_the_next_command_can_be_pasted_whatever_the_folder_is_called(capsys, reward, script):
    folder = Path("/tmp/an odd run; it's")
    numbers = dict.fromkeys(
        ("trained_parameters", "trainable_parameters", "parameters", "step", "memory_peak_bytes"), 1
    )
    numbers |= {"trainable_share": 1.0, "train_seconds": 1.0, "tokens_per_second": 1.0, "rows": 0, "reason": "done"}
    numbers |= {"before": {}, "after": {}, "change": {}, "samples": [], "flipped": [], "reward_model": reward}
    report.finished(numbers, folder)
    words = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    assert words[:4] == ["python", script, "--run", str(folder)]
