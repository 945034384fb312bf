import collections
import itertools

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from ftjax import errors
from ftjax.data import batch as arrays
from ftjax.data import candidates, encode, loader, preference_batch

ALONE = loader.Shard(0, 1)


def examples_of(count, first=0, seed=0, longest=30):
    """Row n holds only the token n + first, so a batch tells which rows it holds."""
    lengths = np.random.default_rng(seed).integers(2, longest + 1, count)
    return [
        encode.Example(np.full(length, n + first, np.int32), np.ones(length, np.uint8), f"a:{n + 1}")
        for n, length in enumerate(lengths)
    ]


def candidates_of(count, seed=0):
    """Row n has prompts and completions of the token n + 1 alone; one to four completions, and pairs of neighbours."""
    random = np.random.default_rng(seed)
    made = []
    for n in range(count):
        full = lambda length, n=n: np.full(length, n + 1, np.int32)
        completions = tuple(full(length) for length in random.integers(1, 6, random.integers(1, 5)))
        made.append(
            candidates.Candidates(
                prompt=full(random.integers(1, 8)),
                completions=completions,
                masks=tuple(np.ones(len(ids), np.uint8) for ids in completions),
                pairs=tuple((k, k + 1) for k in range(len(completions) - 1)),
                margins=(0.0,) * (len(completions) - 1),
                labels=(1.0,) * len(completions),
                where=f"p:{n + 1}",
            )
        )
    return made


def loader_of_candidates(data, prefix, **changed):
    settings = {"layout": "packed", "length": 64, **changed}
    made = preference_batch.collator([data], layout=settings["layout"], length=settings["length"], prefix=prefix)
    return loader_of(data, collator=made, **{"buckets": (16, 32, 64), **settings})


def loader_of(*datasets, **changed):
    settings = {
        "collator": arrays.EXAMPLES,
        "weights": None,
        "layout": "packed",
        "batch_size": 4,
        "length": 32,
        "buckets": (8, 16, 32),
        "seed": 3,
    }
    return loader.Loader(list(datasets), shard=ALONE, **{**settings, **changed})


def rows_of(batch):
    """The rows of the data that each row of a batch holds."""
    found = []
    for tokens, segments in zip(batch.tokens, batch.segments, strict=True):
        found.append([int(tokens[segments == s][0]) for s in range(1, segments.max() + 1)])
    return found


def units(made, count, start=0):
    """The first `count` units of the stream."""
    batches = (rows_of(made.batch(k)) for k in itertools.count(start))
    return list(itertools.islice(itertools.chain.from_iterable(batches), count))


def equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("layout", loader.LAYOUTS)
@pytest.mark.parametrize("count", [1, 3, 37, 300])
def test_every_epoch_takes_every_row_exactly_once(layout, count):
    made = loader_of(examples_of(count), layout=layout)
    stream = units(made, 3 * made.rows)
    for epoch in range(3):
        part = stream[epoch * made.rows : (epoch + 1) * made.rows]
        assert sorted(itertools.chain.from_iterable(part)) == list(range(count))
    assert made.batches_per_epoch == made.rows / 4
    assert made.rows == (count if layout == "padded" else made.rows)


@pytest.mark.parametrize("layout", loader.LAYOUTS)
def test_epochs_and_seeds_differ_and_equal_seeds_agree(layout):
    first, again, other = (loader_of(examples_of(200), layout=layout, seed=seed) for seed in (3, 3, 4))
    stream = units(first, 2 * first.rows)
    assert stream[: first.rows] != stream[first.rows :]
    assert units(again, 2 * first.rows) == stream
    assert units(other, 2 * first.rows) != stream


def test_packing_deals_rows_of_equal_length_to_new_neighbours_each_epoch():
    examples = [encode.Example(np.full(8, n, np.int32), np.ones(8, np.uint8), "a") for n in range(64)]
    made = loader_of(examples)
    stream = units(made, 2 * made.rows)
    neighbours = [{frozenset(unit) for unit in stream[e * made.rows : (e + 1) * made.rows]} for e in (0, 1)]
    assert len(neighbours[0] & neighbours[1]) <= 1


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    strategies.integers(1, 60),
    strategies.integers(1, 7),
    strategies.sampled_from(loader.LAYOUTS),
    strategies.integers(0, 99),
)
def test_a_batch_is_the_same_whatever_was_asked_before(count, batch_size, layout, k):
    fresh = lambda: loader_of(examples_of(count), layout=layout, batch_size=batch_size)
    used = fresh()
    for earlier in (k + 5, 0, k + 200, k):
        used.batch(earlier)
    assert equal(used.batch(k), fresh().batch(k))


@pytest.mark.parametrize("layout", loader.LAYOUTS)
@pytest.mark.parametrize("start", [0, 1, 7, 1000])
def test_iterating_from_any_start_gives_the_batches_of_the_same_number(layout, start):
    made = loader_of(examples_of(61), layout=layout)
    stream = made.iterate(start, threads=3, prefetch=5)
    for k in range(start, start + 3 * int(made.batches_per_epoch) + 3):
        found = next(stream)
        assert type(found) is type(made.batch(k))
        assert equal(found, loader_of(examples_of(61), layout=layout).batch(k))
    stream.close()


def test_an_error_in_a_thread_reaches_the_caller():
    made = loader_of(examples_of(5))
    made._sets[0].examples = [None] * 5
    with pytest.raises(AttributeError, match="ids"):
        next(made.iterate(0, threads=1, prefetch=1))


@pytest.mark.parametrize("layout", loader.LAYOUTS)
@pytest.mark.parametrize("processes", [2, 4])
def test_the_slices_of_all_processes_make_the_global_batch(layout, processes):
    data = examples_of(50)
    whole = loader_of(data, layout=layout)
    parts = [
        loader.Loader(
            [data],
            collator=arrays.EXAMPLES,
            weights=None,
            layout=layout,
            batch_size=4,
            length=32,
            buckets=(8, 16, 32),
            seed=3,
            shard=loader.Shard(process, processes),
        )
        for process in range(processes)
    ]
    for k in (0, 5, 12, 400):
        assert equal([np.concatenate(a) for a in zip(*(part.batch(k) for part in parts), strict=True)], whole.batch(k))


def test_packed_batches_always_have_one_shape():
    made = loader_of(examples_of(21), batch_size=5)
    assert {made.batch(k).tokens.shape for k in range(40)} == {(5, 32)}


def test_padded_batches_hold_rows_of_similar_length_in_random_order():
    made = loader_of(examples_of(1000), layout="padded", batch_size=8)
    batches = [made.batch(k) for k in range(125)]
    lengths = [(batch.segments > 0).sum(1) for batch in batches]
    assert np.mean([row.max() - row.min() for row in lengths]) <= 2
    longest = np.array([row.max() for row in lengths])
    assert {batch.tokens.shape for batch in batches} == {(8, 8), (8, 16), (8, 32)}
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.3


def test_length_groups_stay_whole_when_an_epoch_does_not_end_with_a_batch():
    made = loader_of(examples_of(1003), layout="padded", batch_size=8)
    spreads = [np.ptp((made.batch(k).segments > 0).sum(1)) for k in range(3 * 125)]
    assert np.mean(np.array(spreads) > 4) < 0.02  # only the batches that two epochs share


@pytest.mark.parametrize("layout", loader.LAYOUTS)
def test_a_mixture_has_the_shares_of_its_weights_in_every_epoch(layout):
    small, large = examples_of(40), examples_of(400, first=1000, seed=1)
    made = loader_of(small, large, layout=layout, weights=[1, 1])
    parts = [loader_of(data, layout=layout).rows for data in (small, large)]
    assert made.rows == sum(parts)
    stream = units(made, 4 * made.rows)
    for epoch in range(4):
        part = stream[epoch * made.rows : (epoch + 1) * made.rows]
        of_small = sum(unit[0] < 1000 for unit in part)
        assert abs(of_small - made.rows / 2) <= 1
    counts = collections.Counter(itertools.chain.from_iterable(stream))
    for members in (range(40), range(1000, 1400)):
        seen = [counts[row] for row in members]
        assert max(seen) - min(seen) <= 1  # full passes, one after the other
    assert all(len({row < 1000 for row in unit}) == 1 for unit in stream)


@pytest.mark.parametrize("layout", loader.LAYOUTS)
def test_a_part_of_a_data_set_is_a_fair_sample_of_its_lengths(layout):
    large = examples_of(800, first=1000, longest=31)
    made = loader_of(examples_of(40), large, layout=layout, weights=[9, 1])
    taken = [row - 1000 for row in itertools.chain.from_iterable(units(made, made.rows)) if row >= 1000]
    assert len(taken) >= 40
    mean = np.mean([len(example.ids) for example in large])
    assert abs(np.mean([len(large[row].ids) for row in taken]) - mean) < 0.2 * mean


def test_a_mixture_without_weights_takes_every_row_once_an_epoch():
    made = loader_of(examples_of(40), examples_of(70, first=1000, seed=1))
    assert sorted(itertools.chain.from_iterable(units(made, made.rows))) == [*range(40), *range(1000, 1070)]


def test_seeking_far_costs_no_more_than_the_first_batch():
    import time

    made = loader_of(examples_of(20_000), batch_size=8)
    made.batch(0)
    start = time.process_time()
    made.batch(10**9)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("layout", loader.LAYOUTS)
@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_sees_every_row_once_in_order_and_fills_up_with_zeros(layout, processes):
    data = examples_of(23)
    settings = {"collator": arrays.EXAMPLES, "layout": layout, "batch_size": 4, "length": 32, "buckets": (8, 16, 32)}
    parts = [loader.eval_batches(data, shard=loader.Shard(p, processes), **settings) for p in range(processes)]
    merged = [[np.concatenate(arrays) for arrays in zip(*batches, strict=True)] for batches in zip(*parts, strict=True)]
    assert {batch[0].shape[0] for batch in merged} == {4}
    found = [unit for batch in merged for unit in rows_of(loader.arrays.SFTBatch(*batch)) if unit]
    assert sorted(itertools.chain.from_iterable(found)) == list(range(23))
    assert [unit[0] for unit in found] == sorted(unit[0] for unit in found)
    filler = (merged[-1][4] > 0).any(1)
    assert filler.tolist() == sorted(filler.tolist(), reverse=True)
    assert not any(array[~filler].any() for array in merged[-1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layout": "pakced"}, r"layout='pakced' \(did you mean 'packed'\?\); known: packed, padded"),
        ({"length": 16}, r"tokens does not fit a packed row of 16; set max_length to 16"),
        ({"layout": "padded", "buckets": (8, 16)}, r"fits no bucket of \[8, 16\]"),
        ({"weights": [1.0, 2.0]}, r"mixture weights \[1\.0, 2\.0\] must be 1 positive numbers"),
        ({"weights": [0.0]}, r"mixture weights \[0\.0\] must be 1 positive"),
        ({"batch_size": 0}, r"batch_size=0 rows do not split evenly over 1 processes"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_first_batch(changed, message):
    with pytest.raises(errors.UserError, match=message):
        loader_of(examples_of(30), **changed)


def test_a_weight_too_small_for_one_row_and_an_empty_data_set_are_refused():
    with pytest.raises(errors.UserError, match=r"mixture weight 1e-06 of data set 2 gives it no row of an epoch of"):
        loader_of(examples_of(30), examples_of(30), weights=[1, 1e-6])
    with pytest.raises(errors.UserError, match="a data set without rows"):
        loader_of(examples_of(30), [])


@pytest.mark.parametrize("layout", loader.LAYOUTS)
@pytest.mark.parametrize("prefix", candidates.PREFIXES)
def test_candidates_are_dealt_like_examples_in_batches_of_one_shape(layout, prefix):
    data = candidates_of(60)
    made = loader_of_candidates(data, prefix, layout=layout)
    batches = [made.batch(k) for k in range(int(3 * made.batches_per_epoch))]
    assert len({(batch.ends.shape, batch.chosen.shape) for batch in batches}) == 1
    assert {batch.tokens.shape for batch in batches} <= {(4, length) for length in (16, 32, 64)}
    if layout == "packed":
        assert {batch.tokens.shape for batch in batches} == {(4, 64)}
    assert equal(made.batch(5), loader_of_candidates(data, prefix, layout=layout).batch(5))
    assert equal(next(made.iterate(7, threads=2, prefetch=2)), made.batch(7))


@pytest.mark.parametrize("layout", loader.LAYOUTS)
def test_an_epoch_of_candidates_has_every_completion_and_pair_once(layout):
    data = candidates_of(60)
    made = loader_of_candidates(data, "shared", layout=layout, batch_size=1)
    rows = [made.batch(k) for k in range(made.rows)]
    ends = [int(row.tokens[0, end]) for row in rows for end in row.ends[0][row.ends[0] > 0]]
    assert collections.Counter(ends) == {n + 1: len(one.completions) for n, one in enumerate(data)}
    weights = collections.Counter()
    for row in rows:
        for branch, weight in zip(row.chosen[0], row.pair_weights[0], strict=True):
            if branch:
                weights[int(row.tokens[0, row.ends[0, branch - 1]])] += float(weight)
    assert weights == pytest.approx({n + 1: 1.0 for n, one in enumerate(data) if one.pairs})


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(strategies.integers(1, 50), strategies.integers(0, 99), strategies.sampled_from(candidates.PREFIXES))
def test_no_epoch_deals_a_packed_row_more_completions_or_pairs_than_there_are_places(count, seed, prefix):
    data = candidates_of(count, seed)
    made = loader_of_candidates(data, prefix, batch_size=1)  # a row with too many would be refused
    full = [int((made.batch(k).ends > 0).sum()) for k in range(4 * made.rows)]
    assert max(full) <= made.batch(0).ends.shape[1]


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_sees_all_candidates_once_and_fills_up_with_zeros(processes):
    data = candidates_of(23)
    made = preference_batch.collator([data], layout="packed", length=64, prefix="shared")
    parts = [
        loader.eval_batches(
            data, collator=made, layout="packed", batch_size=4, length=64, buckets=(), shard=loader.Shard(p, processes)
        )
        for p in range(processes)
    ]
    merged = [[np.concatenate(arrays) for arrays in zip(*batches, strict=True)] for batches in zip(*parts, strict=True)]
    found = [preference_batch.PreferenceBatch(*batch) for batch in merged]
    ends = [int(t[end]) for b in found for t, e in zip(b.tokens, b.ends, strict=True) for end in e[e > 0]]
    assert collections.Counter(ends) == {n + 1: len(one.completions) for n, one in enumerate(data)}
    filler = (found[-1].segments > 0).any(1)
    assert not any(array[~filler].any() for array in found[-1])
