"""A window that slides over a text: which tokens count, against the logits of each window alone."""

import jax
import numpy as np
import pytest

from ftjax.evals import sliding
from ftjax.models import decoder

CONTEXT, COUNT = 16, 37
SHAPES = [(37, 16, 16), (37, 16, 5), (37, 16, 1), (33, 16, 16), (9, 16, 4), (17, 16, 3), (2, 16, 16)]


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).integers(1, 61, COUNT).tolist()


@pytest.fixture(scope="module")
def surprise(tiny_config, tiny_params):
    """Returns a function: the nats of the tokens of a text after those before them, all in one row."""
    logits = jax.jit(lambda tokens: jax.nn.log_softmax(decoder.logits(tiny_params, tokens, tiny_config())))

    def nats(tokens):
        row = np.zeros((1, CONTEXT), np.int32)
        row[0, : len(tokens)] = tokens
        found = np.asarray(logits(row))[0]
        return -found[np.arange(len(tokens) - 1), tokens[1:]]

    return nats


@pytest.fixture(scope="module")
def measured(tiny_config, tiny_params, ids):
    return lambda stride: sliding.measure(tiny_params, tiny_config(), ids, context=CONTEXT, stride=stride, rows=2)


@pytest.mark.parametrize(("count", "context", "stride"), SHAPES)
def test_every_token_counts_once_after_at_least_as_many_as_the_stride_leaves(count, context, stride):
    found = sliding.windows(count, context=context, stride=stride)
    counted = [token for one in found for token in range(one.counted, one.end)]
    without = set(range(0, count, context)) if stride == context else {0}
    assert counted == sorted(set(range(count)) - without)
    for one in found:
        assert one.end - one.start <= context
        assert one.start == 0 or one.counted - one.start >= max(context - stride, 1)
        assert one.start % stride == 0
    assert found[-1].end in (count, count - 1)  # a window of one token has nothing to count


def test_a_stride_of_the_whole_context_is_the_mean_over_chunks(measured, surprise, ids):
    chunks = [surprise(ids[start : start + CONTEXT]) for start in range(0, COUNT, CONTEXT)]
    assert [len(one) for one in chunks] == [15, 15, 4]
    found = measured(CONTEXT)
    assert found.tokens == 34
    assert found.total == pytest.approx(np.concatenate(chunks).sum(), rel=1e-6)


def test_a_stride_of_one_gives_every_token_all_the_context_there_is(measured, surprise, ids):
    each = [surprise(ids[max(0, at - CONTEXT + 1) : at + 1])[-1] for at in range(1, COUNT)]
    found = measured(1)
    assert found.tokens == COUNT - 1
    assert found.total == pytest.approx(np.sum(each), rel=1e-6)


def test_overlapping_windows_count_what_the_one_before_did_not_and_the_last_is_shorter(measured, surprise, ids):
    first, second, last = surprise(ids[:16]), surprise(ids[12:28])[-12:], surprise(ids[24:37])[-9:]
    found = measured(12)
    assert found.tokens == COUNT - 1
    assert found.total == pytest.approx(np.concatenate([first, second, last]).sum(), rel=1e-6)


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_of_nothing_or_more_than_the_context_is_refused(stride):
    with pytest.raises(ValueError, match=f"a stride of {stride} in a context of 16"):
        sliding.windows(30, context=16, stride=stride)
