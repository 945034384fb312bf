"""Expressions keep what they say and run nothing; greedy choices keep the bounds of their papers."""

import itertools
import math

import numpy as np
import pytest

from ftjax.data import files, scores, select, selection, versions
from ftjax.errors import UserError
from tests import bases

NAN = math.nan
COLUMNS = {
    "ifd": np.array([0.2, 0.9, 1.4, NAN, 0.5]),
    "handled": np.array([1.0, 0.0, 0.0, 0.0, NAN]),
    "duplicate_rows": np.array([False, True, False, False, False]),
}
SAID = {
    "not handled and ifd < 1": ([1], [3, 4]),
    "handled or ifd >= 0.5": ([0, 1, 2, 4], [3]),
    "not (handled or duplicate_rows)": ([2, 3], [4]),
    "0.3 < ifd <= 0.9": ([1, 4], [3]),
    "ifd is None or handled is None": ([3, 4], []),
    "ifd is not None": ([0, 1, 2, 4], []),
    "abs(ifd - 1) < 0.45": ([1, 2], [3]),
    "ifd / 0 > 1": ([0, 1, 2, 4], [3]),
    "-ifd * 2 + 1 != 0": ([0, 1, 2], [3]),
    "handled == 0": ([1, 2, 3], [4]),
    "True": ([0, 1, 2, 3, 4], []),
}


@pytest.mark.parametrize("text", SAID)
def test_an_expression_keeps_where_it_is_known_and_true(text):
    expression = select.Expression(text, ["ifd", "handled"], ["duplicate_rows"])
    kept, unknown = expression.kept(COLUMNS, count=5)
    assert (np.flatnonzero(kept).tolist(), np.flatnonzero(unknown).tolist()) == SAID[text]


REFUSED = {
    "ifd <": "invalid syntax",
    "": "invalid syntax",
    "__import__('os').system('touch x')": "there is no column '__import__'",
    "ifd.__class__": "'ifd.__class__' is not allowed",
    "abs.__globals__": "is not allowed",
    "abs(ifd, handled)": "is not allowed",
    "abs(x=ifd)": "is not allowed",
    "ifd ** 9 ** 9 > 1": "is not allowed",
    "ifd in (1, 2)": "is not allowed",
    "'a' * 9999999999 == ifd": "is not allowed",
    "[ifd for ifd in (1,)]": "is not allowed",
    "(lambda: ifd)()": "is not allowed",
    "ifd if handled else 0": "is not allowed",
    "(ifd := 1)": "is not allowed",
    "f'{ifd}'": "is not allowed",
    "1e999 > ifd": "is not allowed",
    "abs": "is not allowed",
    "-" * 20_000 + "1": "",
    "(" * 500 + "ifd" + ")" * 500: "",
    "ifd" + " + ifd" * 899 + " > 1": "more than 100 operations one within another",
    "not " * 900 + "ifd": "more than 100 operations one within another",
    "-" * 900 + "ifd": "",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_what_is_no_expression_over_columns_is_refused_and_not_run(text):
    with pytest.raises(UserError) as refused:
        select.Expression(text, ["ifd", "handled"], [])
    assert REFUSED[text] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_expression_that_is_as_deep_as_it_may_be_is_computed():
    terms = select.DEEPEST - 4  # a comparison, a name, its context, and the first sum has two
    expression = select.Expression("ifd" + " + ifd" * terms + " > 50", ["ifd"], [])
    assert expression.kept(COLUMNS, count=5)[0].tolist() == [False, True, True, False, False]
    flat = select.Expression(" or ".join(["ifd > 1"] * 5000), ["ifd"], [])
    assert flat.kept(COLUMNS, count=5)[0].tolist() == [False, False, True, False, False]


def test_a_misspelt_column_is_answered_with_the_nearest_and_all_that_there_are():
    with pytest.raises(UserError, match=r"no column 'handeld' \(did you mean 'handled'\?\); known: ifd, handled, and"):
        select.Expression("not handeld", ["ifd", "handled"], ["duplicate_rows"])
    with pytest.raises(UserError, match=r"did you mean 'duplicate_rows'\?"):
        select.Expression("duplicate_row", ["ifd", "handled"], ["duplicate_rows"])


def units(count, width=3, seed=0):
    found = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_facility_location_is_within_its_bound_of_the_best_and_equals_the_plain_greedy(seed):
    unit = units(11, seed=seed)
    chosen = select.facility_location(unit, 3)
    best = max(select.covered(unit, subset) for subset in itertools.combinations(range(11), 3))
    assert (1 - 1 / math.e) * best <= select.covered(unit, chosen) <= best + 1e-5
    plain: list[int] = []
    for _ in range(3):
        rest = [n for n in range(11) if n not in plain]
        plain.append(max(rest, key=lambda n: (select.covered(unit, [*plain, n]), -n)))
    assert chosen == plain


def test_facility_location_stands_for_more_than_any_of_a_hundred_random_choices():
    unit = units(200, width=8)
    ours = select.covered(unit, select.diverse(unit, 10, method="facility_location", seed=0).tolist())
    random = [select.covered(unit, np.random.default_rng(n).choice(200, 10, replace=False)) for n in range(100)]
    assert ours > max(random)


def radius(unit, chosen):
    return np.linalg.norm(unit[:, None] - unit[list(chosen)][None], axis=2).min(axis=1).max()


@pytest.mark.parametrize("seed", range(6))
def test_k_centre_leaves_no_row_farther_than_twice_the_least_possible(seed):
    unit = units(11, seed=seed)
    best = min(radius(unit, subset) for subset in itertools.combinations(range(11), 3))
    assert radius(unit, select.diverse(unit, 3, method="k_centre", seed=seed)) <= 2 * best + 1e-6


@pytest.mark.parametrize("method", select.METHODS)
def test_a_choice_is_a_function_of_the_seed_and_takes_no_row_twice(method):
    unit = np.repeat(units(6), 3, axis=0)  # each three times
    first, second = (select.diverse(unit, 18, method=method, seed=4) for _ in range(2))
    assert first.tolist() == second.tolist()
    assert sorted(first.tolist()) == list(range(18))
    assert len({n // 3 for n in first[:6]}) == 6  # one of each before a second one


def test_a_method_or_a_number_of_rows_that_there_is_not_is_refused():
    with pytest.raises(UserError, match=r"--method 'k_center' \(did you mean 'k_centre'\?\)"):
        select.diverse(units(4), 2, method="k_center", seed=0)
    with pytest.raises(UserError, match="--diverse 5: 4 rows are left"):
        select.diverse(units(4), 5, method="k_centre", seed=0)


def test_the_largest_are_the_first_of_equals_and_never_unknown():
    assert select.largest(np.array([1.0, NAN, 3.0, 3.0, 2.0]), 2).tolist() == [2, 3]
    assert select.largest(np.array([NAN, 1.0]), 2).tolist() == [1]


WANTED = selection.Wanted(keep=None, top=None, by=None, diverse=None, method="facility_location", seed=0)


@pytest.fixture
def scored(tmp_path):
    """A file of 12 rows, two of them equal, and one that training refuses; and scores of it."""
    made = [*bases.rows(11), bases.rows(1)[0], {"messages": []}]
    file = str(bases.write_rows(tmp_path / "mine.jsonl", made))
    values, _ = scores.blank(13, 0)
    values["ifd"][:12] = np.arange(12) / 10
    values["handled"][:12] = [1, 0] * 6
    embedding = np.full((13, 3), np.nan, np.float16)
    embedding[:12] = units(12)
    manifest = {"format": 1, "file": file, "rows": 13, "rows_hash": versions.now(file), "model": "base"}
    why = [None] * 12 + ["refused"]
    scores.write(
        scores.place(file), scores.Scores(manifest, [f"{file}:{n}" for n in range(13)], why, values, embedding)
    )
    return file, made


def test_rows_are_chosen_step_by_step_in_the_order_of_the_file(scored):
    file, made = scored
    keep = WANTED._replace(keep="not handled and ifd < 1")
    assert selection.choose(file, keep, scores_at=None).values == [made[n] for n in (1, 3, 5, 7, 9)]
    top = keep._replace(top=3, by="ifd")
    assert selection.choose(file, top, scores_at=None).values == [made[n] for n in (5, 7, 9)]
    two = selection.choose(file, top._replace(diverse=2), scores_at=None)
    assert len(two.values) == 2
    assert all(row in [made[n] for n in (5, 7, 9)] for row in two.values)
    assert two.told[1] == "1 that training refuses are left out"


def test_findings_of_the_check_are_columns_and_need_no_scores(scored, tmp_path):
    file, made = scored
    unique = selection.choose(file, WANTED._replace(keep="not duplicate_rows"), scores_at=tmp_path / "none.parquet")
    assert unique.values == made[:11]
    clean = selection.choose(file, WANTED._replace(keep="warnings == 0"), scores_at=tmp_path / "none.parquet")
    assert clean.values == made[:11]
    everything = selection.choose(file, WANTED._replace(keep="1 < 2"), scores_at=None)
    assert everything.values == made[:12]


def test_scores_that_are_missing_are_answered_with_the_command_that_makes_them(tmp_path):
    file = str(bases.write_rows(tmp_path / "mine.jsonl", bases.rows(3)))
    for wanted in (WANTED._replace(keep="ifd < 1"), WANTED._replace(diverse=2), WANTED._replace(top=1, by="ifd")):
        with pytest.raises(UserError, match=r"mine.jsonl has no scores .*data.py score .*mine.jsonl --model DIR"):
            selection.choose(file, wanted, scores_at=None)


def test_a_file_that_has_changed_since_it_was_scored_is_refused(scored):
    file, _ = scored
    files.write_over(file, [line + "\n" for line in ['{"text": "red"}']])
    with pytest.raises(UserError, match="has changed since it was scored"):
        selection.choose(file, WANTED._replace(keep="handled"), scores_at=None)


def test_a_rule_that_needs_more_than_the_file_says_so(scored):
    with pytest.raises(UserError, match="the rule in_evaluation needs --against"):
        selection.choose(scored[0], WANTED._replace(keep="not in_evaluation"), scores_at=None)
