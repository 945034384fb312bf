"""Log-probabilities of continuations, packed behind shared contexts, against the logits of each sequence alone."""

import jax
import numpy as np
import pytest

from ftjax.errors import UserError
from ftjax.evals import continuations
from ftjax.models import decoder


@pytest.fixture(scope="module")
def pairs():
    """Pairs that share contexts, stand twice, differ in length, and one that only a longer row holds."""
    rng = np.random.default_rng(0)
    draw = lambda count: rng.integers(1, 61, count).tolist()
    one, other = draw(9), draw(20)
    found = [(one, draw(n)) for n in (1, 3, 5)] + [(other, draw(n)) for n in (12, 14, 2)]
    return [*found, (draw(1), draw(2)), found[1], (draw(40), draw(7))]


@pytest.fixture(scope="module")
def alone(tiny_config, tiny_params, pairs):
    """What the logits of every pair, each in a row of its own, say."""
    tokens = np.zeros((len(pairs), 47), np.int32)
    for row, (context, rest) in zip(tokens, pairs, strict=True):
        row[: len(context) + len(rest)] = (*context, *rest)
    logps = np.asarray(jax.nn.log_softmax(decoder.logits(tiny_params, tokens, tiny_config())))
    found = []
    for row, (context, rest) in zip(logps, pairs, strict=True):
        own = row[len(context) - 1 : len(context) + len(rest) - 1]
        found.append((own[np.arange(len(rest)), rest].sum(), (own.argmax(-1) == rest).all()))
    return found


def test_packed_continuations_have_the_log_probabilities_of_each_alone(tiny_config, tiny_params, pairs, alone):
    found = continuations.score(tiny_params, tiny_config(), pairs, length=32, rows=2)
    np.testing.assert_allclose([one.logp for one in found], [logp for logp, _ in alone], atol=2e-5)
    assert [one.greedy for one in found] == [bool(greedy) for _, greedy in alone]


def test_the_likeliest_continuation_is_greedy(tiny_config, tiny_params):
    context = [5, 6, 7]
    best = int(np.argmax(decoder.logits(tiny_params, np.array([context]), tiny_config())[0, -1]))
    found = continuations.score(
        tiny_params, tiny_config(), [(context, [best]), (context, [best, 1])], length=32, rows=2
    )
    assert [one.greedy for one in found] == [True, False]


def test_a_context_stands_once_for_all_its_continuations(tiny_config, tiny_params, monkeypatch):
    seen = []
    run = continuations._run
    monkeypatch.setattr(continuations, "_run", lambda *given: seen.append(given[2]) or run(*given))
    context = list(range(1, 21))
    pairs = [(context, [n]) for n in range(1, 13)]
    continuations.score(tiny_params, tiny_config(), [*pairs, *pairs], length=32, rows=2)
    (batch,) = seen
    assert [[unit.size for unit in row] for row in batch] == [[19 + 12]]


def test_a_context_longer_than_a_row_stands_once_as_well():
    context = tuple(range(1, 41))
    choices = [(context, (n,)) for n in range(4)]
    (unit,) = continuations._units(choices, 32, 512)
    assert (unit.size, continuations._row(unit.size, 32, 512)) == (39 + 4, 64)
    longer = [(context, tuple(range(60))), (context, tuple(range(40)))]
    sizes = [unit.size for unit in continuations._units([*choices, *longer], 32, 512)]
    assert sizes == [39 + 4 + 60, 39 + 40]  # 60 tokens need a row of 128, which has no room for 40 more


def test_batches_are_equal_so_that_few_rows_are_empty(tiny_config, tiny_params, monkeypatch):
    seen = []
    monkeypatch.setattr(continuations, "_run", lambda *given: seen.append([bool(row) for row in given[2]]) or {})
    pairs = [(list(range(n, n + 30)), [3]) for n in range(1, 6)]
    with pytest.raises(KeyError):  # nothing was computed
        continuations.score(tiny_params, tiny_config(), pairs, length=32, rows=4)
    assert seen == [[True] * 3, [True, True, False]]


def test_rows_are_as_short_as_makes_the_least_to_compute(tiny_config, tiny_params, monkeypatch):
    seen = []
    monkeypatch.setattr(continuations, "_run", lambda *given: seen.append((len(given[2]), given[3])) or {})
    pairs = [(list(range(n, n + 28)), [3, 4]) for n in range(1, 13)]  # units of 29: two fit 64, four 128, eight 256
    with pytest.raises(KeyError):
        continuations.score(tiny_params, tiny_config(), pairs, length=256, rows=2)
    assert seen == [(6, 64)]
    seen.clear()
    one = [(list(range(1, 61)), [n, 4]) for n in range(1, 91)]  # 59 + 2 * 90 tokens, or in rows of 128 three contexts
    with pytest.raises(KeyError):
        continuations.score(tiny_params, tiny_config(d_ff=8192), one, length=256, rows=2)  # matmuls are the most of it
    assert seen == [(1, 256)]


def test_a_context_that_is_too_long_loses_its_beginning(tiny_config, tiny_params):
    short = tiny_config(max_position=32)
    context, rest = list(range(1, 51)), [3, 4]
    found = continuations.score(tiny_params, short, [(context, rest), (context[-31:], rest)], length=64, rows=1)
    assert found[0] == found[1]
    with pytest.raises(UserError, match="a continuation of 33 tokens is more than the 32"):
        continuations.score(tiny_params, short, [([1], [2] * 33)], length=32, rows=1)
    with pytest.raises(ValueError, match="a context of 0"):
        continuations.score(tiny_params, short, [([], [2])], length=32, rows=1)
