import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from ftjax import errors
from ftjax.data import candidates, pack, preference_batch

FEW = strategies.integers(1, 4)
SHAPES = strategies.lists(strategies.tuples(FEW, strategies.lists(FEW, min_size=1, max_size=4)), min_size=1, max_size=4)


def candidates_of(shapes, seed=0, mismatched=False):
    """Rows of distinct tokens; `shapes` has a length of the prompt and lengths of the completions for each."""
    random, known, made = np.random.default_rng(seed), iter(range(1, 10_000)), []
    take = lambda n: np.array([next(known) for _ in range(n)], np.int32)
    for number, (prompt, lengths) in enumerate(shapes, start=1):
        pairs = [(a, b) for a in range(len(lengths)) for b in range(len(lengths)) if a != b and random.random() < 0.4]
        masks = tuple(random.integers(0, 2, n).astype(np.uint8) for n in lengths)
        made.append(
            candidates.Candidates(
                prompt=take(prompt),
                completions=tuple(take(n) for n in lengths),
                masks=masks,
                pairs=tuple(pairs),
                margins=tuple(random.random(len(pairs)).astype(np.float32).tolist()),
                labels=tuple(float(random.choice([0, 1, np.nan, 2.5])) for _ in lengths),
                where=f"p:{number}",
                mismatched=tuple(take(n) for n in lengths) if mismatched else (),
                mismatched_masks=masks if mismatched else (),
            )
        )
    return made


def packed(rows, prefix, length=256, completions=40, pairs=60):
    return preference_batch.pack_candidates(rows, length=length, completions=completions, pairs=pairs, prefix=prefix)


def branch_of(batch, b, number):
    """The tokens that a completion's last token sees, with their places: found by the rule of the mask alone."""
    end = int(batch.ends[b, number - 1])
    place = np.arange(batch.tokens.shape[1])
    seen = (batch.segments[b] == batch.segments[b, end]) & (place <= end)
    return place[seen & np.isin(batch.branches[b], (0, number))]


def rebuilt(batch, b):
    """(prompt and completion, counting tokens, positions) of each branch of a row, and its pairs."""
    found = []
    for number in range(1, int(batch.branches[b].max()) + 1):
        at = branch_of(batch, b, number)
        targets, weights = batch.targets[b, at], batch.weights[b, at]
        assert not weights[-1]
        assert not targets[-1]
        found.append((batch.tokens[b, at].tolist(), [0.0, *weights[:-1].tolist()], batch.positions[b, at].tolist()))
    live = batch.pair_weights[b] > 0
    columns = (batch.chosen, batch.rejected, batch.margins, batch.pair_weights)
    return found, list(zip(*(column[b, live].tolist() for column in columns), strict=True))


@pytest.mark.parametrize("prefix", candidates.PREFIXES)
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(strategies.lists(SHAPES, min_size=1, max_size=2), strategies.integers(0, 99), strategies.booleans())
def test_rows_can_be_rebuilt_from_a_batch_exactly(prefix, shapes, seed, mismatched):
    everything = candidates_of([one for row in shapes for one in row], seed, mismatched)
    members = iter(everything)
    rows = [[next(members) for _ in row] for row in shapes]
    batch = packed([*rows, []], prefix)
    assert not any(array[-1].any() for array in batch)
    for b, row in enumerate(rows):
        branches, pairs = rebuilt(batch, b)
        wanted, wanted_pairs = [], []
        for one in row:
            first = len(wanted) + 1
            for ids, mask in one.branches():
                whole = [*one.prompt.tolist(), *ids.tolist()]
                wanted.append((whole, [0.0] * len(one.prompt) + mask.tolist(), list(range(len(whole)))))
            wanted_pairs += [
                (first + better, first + worse, margin, np.float32(1 / len(one.pairs)))
                for (better, worse), margin in zip(one.pairs, one.margins, strict=True)
            ]
        assert branches == wanted
        assert pairs == wanted_pairs
        used = sum(one.size(prefix) for one in row)
        assert (batch.segments[b] > 0).sum() == used
        assert not any(array[b, used:].any() for array in batch if array.shape[1] == 256)


@pytest.mark.parametrize("prefix", candidates.PREFIXES)
def test_targets_follow_within_the_branch_and_padding_is_zero(prefix):
    batch = packed([candidates_of([(3, [2, 4]), (1, [1])])], prefix, length=40)
    tokens, targets = batch.tokens[0], batch.targets[0]
    for t in np.flatnonzero(batch.segments[0]):
        following = np.flatnonzero(tokens == targets[t])
        assert targets[t] == 0 or batch.branches[0, t] in batch.branches[0, following]
    live = batch.weights[0] > 0
    np.testing.assert_array_equal(targets[live], tokens[np.flatnonzero(live) + 1])


def test_a_shared_prompt_stands_once_and_each_branch_begins_with_a_copy_of_its_last_token():
    (one,) = candidates_of([(3, [2, 1])])
    one = one._replace(masks=(np.ones(2, np.uint8), np.ones(1, np.uint8)), labels=(1.0, 0.0))
    batch = packed([[one]], "shared", length=9, completions=3, pairs=2)
    a, b, c = one.prompt.tolist()
    d, e, f = np.concatenate(one.completions).tolist()
    assert batch.tokens.tolist() == [[a, b, c, d, e, c, f, 0, 0]]
    assert batch.targets.tolist() == [[b, 0, d, e, 0, f, 0, 0, 0]]
    assert batch.weights.tolist() == [[0, 0, 1, 1, 0, 1, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 2, 3, 0, 0]]
    assert batch.segments.tolist() == [[1] * 7 + [0, 0]]
    assert batch.branches.tolist() == [[0, 0, 1, 1, 1, 2, 2, 0, 0]]
    assert batch.ends.tolist() == [[4, 6, 0]]
    assert (batch.labels.tolist(), batch.label_weights.tolist()) == ([[1, 0, 0]], [[1, 1, 0]])


def test_a_repeated_prompt_has_a_segment_for_each_completion():
    (one,) = candidates_of([(2, [1, 2])])
    batch = packed([[one]], "repeated", length=8, completions=2, pairs=2)
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2, 2, 2, 0]]
    assert batch.branches.tolist() == batch.segments.tolist()
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3, 0]]
    assert batch.ends.tolist() == [[2, 6]]


@pytest.mark.parametrize("prefix", candidates.PREFIXES)
def test_beyond_marks_the_counting_targets_that_the_shorter_one_has_not(prefix):
    (one,) = candidates_of([(2, [5, 2])])
    masks = (np.array([1, 1, 0, 1, 1], np.uint8), np.array([1, 1], np.uint8))
    one = one._replace(masks=masks, pairs=((0, 1),), margins=(0.0,))
    batch = packed([[one]], prefix)
    assert batch.targets[batch.beyond > 0].tolist() == one.completions[0][3:].tolist()
    swapped = one._replace(pairs=((1, 0),))
    np.testing.assert_array_equal(packed([[swapped]], prefix).beyond, batch.beyond)
    more = one._replace(completions=(*one.completions, one.completions[0]), masks=(*masks, masks[0]), labels=(1.0,) * 3)
    assert not packed([[more]], prefix).beyond.any()
    assert not packed([[one._replace(pairs=(), margins=())]], prefix).beyond.any()


def test_labels_of_nan_have_no_weight_and_mismatched_completions_are_marked():
    (one,) = candidates_of([(2, [1, 1])], mismatched=True)
    one = one._replace(labels=(float("nan"), 2.5), reference=(-1.0, -2.0, -3.0, -4.0))
    batch = packed([[one]], "shared", completions=5, pairs=2)
    assert batch.labels.tolist() == [[0, 2.5, 0, 0, 0]]
    assert batch.label_weights.tolist() == [[0, 1, 0, 0, 0]]
    assert batch.mismatched.tolist() == [[0, 0, 1, 1, 0]]
    assert batch.reference.tolist() == [[-1, -2, -3, -4, 0]]
    with pytest.raises(ValueError, match="p:1: 2 reference values for 4 completions"):
        packed([[one._replace(reference=(-1.0, -2.0))]], "shared")


def test_types_and_shapes_are_fixed():
    batch = packed([[], []], "shared", length=7, completions=3, pairs=2)
    shapes = {(2, 7): 7, (2, 3): 5, (2, 2): 4}
    assert {shape: sum(array.shape == shape for array in batch) for shape in shapes} == shapes
    floats = {"weights", "beyond", "labels", "label_weights", "mismatched", "reference", "margins", "pair_weights"}
    assert {name for name in batch._fields if getattr(batch, name).dtype == np.float32} == floats
    assert {array.dtype.name for array in batch} == {"float32", "int32"}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"length": 7}, r"p:1: its packed row has 8 tokens or more, but holds 7"),
        ({"completions": 1}, r"p:1: its packed row has 2 completions or more, but holds 1"),
        ({"pairs": 0}, r"p:1: its packed row has 1 pairs or more, but holds 0"),
    ],
)
def test_a_row_with_too_few_places_is_refused_with_its_line(places, message):
    (one,) = candidates_of([(3, [2, 2])])
    with pytest.raises(errors.UserError, match=message):
        packed([[one._replace(pairs=((0, 1),), margins=(0.0,))]], "shared", **places)


def test_candidates_that_fit_no_row_are_refused_before_training():
    data = candidates_of([(3, [2, 2]), (3, [4, 4])])
    message = r"p:2: the prompt \(shared\) and 2 completions have 12 tokens, but a row of a batch holds 11; make"
    for layout in ("packed", "padded"):
        with pytest.raises(errors.UserError, match=message):
            preference_batch.collator([data], layout=layout, length=11, prefix="shared")
        assert preference_batch.collator([data], layout=layout, length=12, prefix="shared").size(data[1]) == 12


def test_places_follow_from_the_rows_that_may_meet_in_a_bin():
    # Lengths 4, 4, 2, 2 in bins of 6: a 4 and a 2 meet, whichever they are.
    assert pack.most([1, 3, 1, 5], [4, 4, 2, 2], length=6) == 8
    assert pack.most([1, 3, 1, 5], [4, 4, 2, 2], length=4) == 6
    assert pack.most([2, 2, 2], [3, 3, 3], length=3) == 2
