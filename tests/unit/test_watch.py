"""What a run on own samples is told on its way: said once, and only where it is so."""

import pytest

from ftjax import watch
from ftjax.held_out_prompts import REWARD
from ftjax.rl.rewards import Failure
from ftjax.rl.rollout import Drawn

DRAWN = Drawn([{"prompt": "p", "completion": "c", "score": float(n)} for n in range(12)], [])


class Pages:
    def __init__(self):
        self.written = []

    def text(self, number, kind, rows):
        self.written.append((number, kind, rows))


@pytest.fixture
def run():
    """Returns a function: numbers of steps, what was drawn, the cadence of tables -> the watch, what it said, pages."""

    def make(steps, drawn=DRAWN, every=0, before=None):
        said, pages = [], Pages()
        made = watch.Watch(said.append, before or {})
        for number, numbers in enumerate(steps, start=1):
            made.step(number, numbers, drawn, pages, every)
        return made, said, pages

    return make


def test_a_first_update_away_from_its_rollout_is_said_once(run):
    """(26)"""
    assert run([{"policy/approxkl_first": 1e-10}] * 3)[1] == []
    _, said, _ = run([{"policy/approxkl_first": 0.0}, {"policy/approxkl_first": 0.02}, {"policy/approxkl_first": 0.02}])
    assert len(said) == 1
    assert "in step 2 the first update began 0.02 nats a token away" in said[0]


def test_rewards_that_fail_are_said_once_each_with_the_first_row(run):
    lost = [Failure(2, "numeric", "ValueError: no number", "Add 2 and 3."), Failure(5, "numeric", "timeout", "Add.")]
    _, said, _ = run([{}, {}], Drawn([], [*lost, Failure(0, "judge", "the reward model says nan", "Say.")]))
    assert len(said) == 1
    assert said[0].startswith("warning: the reward numeric failed in step 1, which has 3 such completions")
    assert "ValueError: no number (prompt 'Add 2 and 3.')" in said[0]


@pytest.mark.parametrize(("last", "warns"), [(25.0, True), (19.0, False)])
def test_completions_that_become_twice_as_long_are_said(run, last, warns):
    lengths = [10.0] * 5 + [14.0] * 5 + [last] * 5
    _, said, _ = run([{"completions/mean_length": value} for value in lengths])
    assert [("2 times as long" in line, "(10 -> 21 tokens)" in line) for line in said] == [(True, True)] * warns


@pytest.mark.parametrize(
    ("first", "last", "held_out", "warns"), [(1, 2, 0.4, True), (1, 2, 0.6, False), (2, 1, 0.4, False)]
)
def test_a_reward_that_rises_while_the_held_out_score_falls_is_said_once(run, first, last, held_out, warns):
    scores = [float(first)] * 5 + [float(last)] * 5
    made, said, _ = run([{"objective/scores": value} for value in scores], before={REWARD: 0.5})
    numbers = {REWARD: held_out, "eval_loss": -held_out}
    assert made.evaluated(numbers) is numbers
    made.evaluated(numbers)
    assert len(said) == warns
    assert all("(1 -> 2) while the held-out score falls (0.5 -> 0.4)" in line for line in said)


def test_an_early_evaluation_says_nothing(run):
    made, said, _ = run([{"objective/scores": 1.0}], before={REWARD: 0.5})
    made.evaluated({REWARD: 0.1})
    assert said == []


def test_a_table_of_completions_is_written_every_so_many_steps(run):
    _, _, pages = run([{}] * 5, every=2)
    assert [(number, kind) for number, kind, _ in pages.written] == [(2, "completions"), (4, "completions")]
    assert pages.written[0][2] == DRAWN.table[: watch.SHOWN]
    assert run([{}] * 3)[2].written == []


def test_a_run_that_learns_from_data_is_not_watched(run):
    assert run([{"policy/approxkl_first": 1.0}], drawn=None)[1] == []
