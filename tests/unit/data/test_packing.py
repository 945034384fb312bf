import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from ftjax import errors
from ftjax.data import batch, encode, pack

LENGTHS = strategies.lists(strategies.integers(1, 16), min_size=1, max_size=80)


def examples_of(lengths, seed=0):
    """Rows of distinct tokens, so that no token can stand for another."""
    random, start, made = np.random.default_rng(seed), 1, []
    for n, length in enumerate(lengths):
        ids = np.arange(start, start + length, dtype=np.int32)
        made.append(encode.Example(ids, random.integers(0, 2, length).astype(np.uint8), f"a:{n + 1}"))
        start += length
    return made


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(LENGTHS)
def test_no_bin_overflows_and_at_most_one_is_under_half_full(lengths):
    bins = pack.best_fit(lengths, length=16)
    fill = np.bincount(bins, weights=lengths)
    assert sorted(set(bins.tolist())) == list(range(len(fill)))
    assert fill.max() <= 16
    assert (fill <= 8).sum() <= 1  # two of them would have been put together


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(LENGTHS, strategies.randoms(use_true_random=False))
def test_the_bins_depend_on_the_lengths_but_not_on_their_order(lengths, random):
    shuffled = random.sample(lengths, len(lengths))
    contents = [
        sorted(sorted(sizes[rows].tolist()) for rows in pack.members(pack.best_fit(sizes, length=16)))
        for sizes in (np.array(lengths), np.array(shuffled))
    ]
    assert contents[0] == contents[1]


def test_best_fit_takes_the_fullest_bin_with_room():
    assert pack.best_fit([3, 4, 1], length=4).tolist() == [1, 0, 1]  # TRL's published example
    assert pack.best_fit([6, 5, 4, 3], length=10).tolist() == [0, 1, 0, 1]
    assert pack.best_fit([7, 5, 3, 2], length=10).tolist() == [0, 1, 0, 1]


def test_a_row_longer_than_a_bin_is_refused():
    with pytest.raises(errors.UserError, match="a row of 17 tokens does not fit a packed row of 16"):
        pack.best_fit([3, 17], length=16)


def test_a_hundred_thousand_rows_are_packed_tightly_within_seconds():
    import time

    lengths = np.minimum(np.random.default_rng(0).lognormal(4, 1, 100_000).astype(int) + 1, 2048)
    start = time.process_time()
    bins = pack.best_fit(lengths, length=2048)
    assert time.process_time() - start < 3
    assert bins.max() + 1 <= np.ceil(lengths.sum() / 2048) + 1


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(LENGTHS)
def test_a_packed_batch_holds_every_token_once_and_never_mixes_rows(lengths):
    examples = examples_of(lengths)
    groups = pack.members(pack.best_fit(lengths, length=16))
    made = batch.pack_rows([[examples[i] for i in rows] for rows in groups], length=16)
    real = made.segments > 0
    assert sorted(made.tokens[real].tolist()) == list(range(1, sum(lengths) + 1))
    for name in ("tokens", "targets", "weights", "positions"):
        assert not getattr(made, name)[~real].any()
    for b, rows in enumerate(groups):
        for number, i in enumerate(rows, start=1):
            here = made.segments[b] == number
            ids, mask = examples[i].ids, examples[i].mask
            np.testing.assert_array_equal(made.tokens[b, here], ids)
            np.testing.assert_array_equal(made.positions[b, here], np.arange(len(ids)))
            np.testing.assert_array_equal(made.targets[b, here], [*ids[1:], 0])
            np.testing.assert_array_equal(made.weights[b, here], [*mask[1:], 0])
            assert (np.diff(np.flatnonzero(here)) == 1).all()


def test_types_and_shapes_of_a_batch_are_fixed():
    made = batch.pad_rows([*examples_of([3, 2]), None], length=8)
    assert [(a.dtype.name, a.shape) for a in made] == [
        (kind, (3, 8)) for kind in ("int32", "int32", "float32", "int32", "int32")
    ]
    assert not any(array[2].any() for array in made)
    assert made.segments.tolist() == [[1] * 3 + [0] * 5, [1] * 2 + [0] * 6, [0] * 8]


def test_padding_equal_to_a_real_token_changes_no_weight():
    ids, mask = np.array([5, 0, 0], np.int32), np.array([0, 1, 1], np.uint8)
    made = batch.pad_rows([encode.Example(ids, mask, "a:1")], length=5)
    assert made.weights.tolist() == [[1, 1, 0, 0, 0]]
    assert made.segments.tolist() == [[1, 1, 1, 0, 0]]


def test_a_padded_row_takes_the_smallest_bucket_that_holds_it():
    assert [batch.bucket(n, (64, 16, 32)) for n in (1, 16, 17, 64)] == [16, 16, 32, 64]
    with pytest.raises(errors.UserError, match=r"a row of 65 tokens fits no bucket of \[16, 32, 64\]"):
        batch.bucket(65, (64, 16, 32))


def test_a_packed_row_that_overflows_is_refused_with_its_line():
    with pytest.raises(errors.UserError, match=r"a:2: its packed row has 9 tokens or more, but holds 8"):
        batch.pack_rows([examples_of([5, 4])], length=8)


def test_buckets_hold_every_text_once_in_few_shapes_with_little_padding():
    lengths = np.random.default_rng(0).integers(1, 700, 500).tolist()
    made = batch.by_width(lengths, longest=640 + 60, rows=16)
    assert sorted(place for places, _ in made for place in places) == list(range(500))
    assert all(len(places) <= 16 for places, _ in made)
    assert all(lengths[place] <= width for places, width in made for place in places)
    assert {width for _, width in made} == {32, 48, 64, 96, 128, 192, 256, 384, 512, 700}
    padded = sum(width * len(places) for places, width in made)
    assert sum(lengths) / padded > 0.75
