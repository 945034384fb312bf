"""Calls in processes of their own: each has its outcome, whatever the others do to their process."""

import math
import time

import pytest
import reward_functions

from ftjax.errors import UserError
from ftjax.rl import processes


@pytest.fixture(scope="module")
def pool():
    """Two processes, shared, as starting Python takes longer than all that is tested in it."""
    pool = processes.Pool(2)
    yield pool
    pool.close()


def run(pool, *texts, timeout=1.0):
    return pool.run(reward_functions.alone, [{"completions": [text]} for text in texts], timeout=timeout)


def test_calls_that_hang_or_end_their_process_are_named_and_the_rest_is_done(pool):
    start = time.monotonic()
    found = run(pool, "1", "hang", "exit", "slow", "raise", "6")
    assert time.monotonic() - start < 30  # and not the 60 s that one of them sleeps
    assert [one.why for one in found] == [
        *("", "took longer than 1 s", "ended its process with exit code 3"),
        *("", r"KeyError: 'no such\nkey'", ""),
    ]
    assert [found[at].value for at in (0, 3, 5)] == [1.0, 0.5, 6.0]
    assert all(math.isnan(found[at].value) for at in (1, 2, 4))
    assert [one.value for one in run(pool, "7", "8", "9")] == [7.0, 8.0, 9.0]


def test_the_order_in_which_calls_finish_changes_nothing(pool):
    texts = ["slow", *map(str, range(9)), "slow", "9"]
    wanted = [0.5, *range(9), 0.5, 9]
    assert [one.value for one in run(pool, *texts)] == wanted
    assert [one.value for one in run(pool, *texts[::-1])] == wanted[::-1]


def test_calls_run_side_by_side(pool):
    run(pool, "0", "0")
    start = time.monotonic()
    run(pool, *["slow"] * 6)
    assert time.monotonic() - start < 1.5  # 0.3 s each: 1.8 s one after another


def test_the_limit_is_of_a_call_and_not_of_all(pool):
    assert [one.why for one in run(pool, *["slow"] * 8, timeout=0.9)] == [""] * 8


def test_what_cannot_be_sent_or_loaded_fails_alone(pool):
    rows = [{"completions": ["1"]}, {"completions": [lambda: 0]}, {"completions": [reward_functions.Unloadable()]}]
    found = pool.run(reward_functions.alone, rows, timeout=1.0)
    assert [one.why[:34] for one in found] == [
        *("", "cannot be sent to a process: Attri", "cannot be loaded in a process: Run"),
    ]


def test_a_process_that_died_between_calls_is_replaced(pool):
    run(pool, "0", "0")
    for worker in pool._workers:
        worker.process.kill()
        worker.process.join()
    assert [one.value for one in run(pool, "1", "2")] == [1.0, 2.0]


def test_a_process_that_cannot_start_is_an_error_of_one_line(monkeypatch):
    monkeypatch.setattr(processes, "_serve", reward_functions.no_server)
    pool = processes.Pool(1)
    with pytest.raises(UserError, match=r"exit code 4 before it could call one.*__main__"):
        run(pool, "1")
    assert pool._workers == []


def test_an_interrupted_call_leaves_no_answer_behind(pool, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(processes.connection, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(pool, "1", "2")
    assert [one.value for one in run(pool, "3", "4")] == [3.0, 4.0]
