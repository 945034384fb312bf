"""`data.py split` and `mix`: like rows stay together, sizes are as asked, the same seed gives the same files."""

import collections
import itertools
import json
import time

import numpy as np
import pytest

from ftjax import errors
from ftjax.data import mix, rows, similarity, split
from tests import check_cases

LIKE = [
    check_cases.chat("Who opens?", check_cases.LONG.replace("eight", number).replace("dog", f"dog of {number} years"))
    for number in check_cases.NUMBERS
]


@pytest.fixture
def read(tmp_path):
    def reader(found, name="rows.jsonl"):
        (tmp_path / name).write_bytes(check_cases.lines(found))
        return rows.read(str(tmp_path / name))

    return reader


def test_no_row_of_a_part_is_nearly_one_of_another_and_none_is_lost(read):
    repeated = [check_cases.chat("Which tower?", f"Number {n}.") for n in range(6)]
    found = [*check_cases.MANY, *LIKE, *repeated]
    data = read(found)
    parts = split.split(data, {"train": 0.7, "test": 0.3}, seed=0, by=None, clusters=None)
    kept = [json.dumps(row) for values in parts.values.values() for row in values]
    assert sorted(kept) == sorted(map(json.dumps, found))
    assert parts.groups <= len(check_cases.MANY) + 2
    train, test = (read(parts.values[name], f"{name}.jsonl") for name in ("train", "test"))
    edge = len(train.texts)
    assert not [one for one in similarity.near([*train.texts, *test.texts]) if one.row >= edge > one.like]
    asked = [{similarity.normal(sample.opening) for sample in part.samples} for part in (train, test)]
    assert not asked[0] & asked[1]


def drawn(seed):
    """Texts of which many pairs have a Jaccard index just above or below that of a near-duplicate."""
    draw = np.random.default_rng(seed)
    words = np.array([f"word{n}" for n in range(draw.integers(8, 400))])
    found = []
    for _ in range(6):
        base = draw.choice(words, draw.integers(3, 90))
        for _ in range(draw.integers(1, 9)):
            made = base.copy()
            made[draw.integers(len(made), size=draw.integers(0, 1 + len(made) // 12))] = draw.choice(words)
            found.append(" ".join([*made, *draw.choice(words, draw.integers(0, 1 + len(made) // 8))]))
    found += ["", "...", found[0].upper(), "word1", "word1 word2"]
    return [found[n] for n in draw.permutation(len(found))]


def test_groups_miss_no_pair_that_is_nearly_equal_and_join_no_others():
    edge = 0
    for seed in range(40):
        texts = drawn(seed)
        first = list(range(len(texts)))
        for a, b in itertools.combinations(range(len(texts)), 2):
            jaccard = similarity.exact(texts[a], texts[b])
            edge += 0.7 < jaccard < 0.9
            if jaccard >= similarity.JACCARD and first[a] != first[b]:
                kept, gone = sorted((first[a], first[b]))
                first = [kept if own == gone else own for own in first]
        assert similarity.groups(texts).tolist() == first, seed
    assert edge > 150, "few pairs were near the threshold"


def test_near_duplicates_never_straddle_whatever_the_seed(read):
    """Twenty files of pairs at the threshold, where MinHash alone would miss one in twenty."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        found = []
        for n in range(20):
            said = [f"word{i}" for i in draw.choice(4000, 38)]
            found += [{"text": " ".join(said)}, {"text": " ".join([*said, *(f"own{n}x{i}" for i in range(8))])}]
        parts = split.split(read(found), {"a": 1, "b": 1}, seed=seed, by=None, clusters=None)
        texts = {name: [row["text"] for row in values] for name, values in parts.values.items()}
        assert max(similarity.exact(a, b) for a in texts["a"] for b in texts["b"]) < similarity.JACCARD
        assert {len(own) for own in texts.values()} == {20}


def test_many_rows_with_much_in_common_are_grouped_in_seconds():
    draw = np.random.default_rng(0)
    words = np.array([f"word{n}" for n in range(5000)])
    base = draw.choice(words, 200)
    texts = []
    for _ in range(2000):
        made = base.copy()
        made[draw.choice(200, 8, replace=False)] = draw.choice(words, 8)
        texts.append(" ".join(made))
    began = time.process_time()
    assert len({*similarity.groups(texts).tolist()}) == 2000
    assert time.process_time() - began < 8  # 0.6 s where it was written; 12 s without the bounds


def test_parts_have_the_shares_that_were_asked_for_and_keep_the_order_of_the_file(read):
    data = read(check_cases.MANY)
    parts = split.split(data, {"train": 0.8, "dev": 0.1, "test": 0.1}, seed=1, by=None, clusters=None)
    assert {name: len(values) for name, values in parts.values.items()} == {"train": 48, "dev": 6, "test": 6}
    place = {json.dumps(row): n for n, row in enumerate(check_cases.MANY)}
    for values in parts.values.values():
        order = [place[json.dumps(row)] for row in values]
        assert order == sorted(order)


def test_a_seed_decides_the_parts_and_another_one_gives_others(read):
    data = read(check_cases.MANY)
    one, again, other = (
        split.split(data, {"a": 1, "b": 1}, seed=seed, by=None, clusters=None).values for seed in (0, 0, 1)
    )
    assert one == again
    assert one != other


def test_rows_of_one_value_of_a_column_stay_together(read):
    data = read([{**row, "author": n % 7} for n, row in enumerate(check_cases.MANY)])
    parts = split.split(data, {"train": 0.6, "test": 0.4}, seed=0, by="author", clusters=None)
    authors = [{row["author"] for row in values} for values in parts.values.values()]
    assert not authors[0] & authors[1]
    assert authors[0] | authors[1] == set(range(7))
    with pytest.raises(errors.UserError, match="no row has a column 'autor'"):
        split.split(data, {"train": 0.6, "test": 0.4}, seed=0, by="autor", clusters=None)


def test_no_part_is_empty_and_too_few_groups_are_refused(read):
    data = read([*LIKE, *check_cases.MANY[:2]])
    parts = split.split(data, {"a": 0.98, "b": 0.01, "c": 0.01}, seed=0, by=None, clusters=None)
    assert all(parts.values.values())
    with pytest.raises(errors.UserError, match="1 groups of like rows, fewer than 2 parts"):
        split.split(read(LIKE), {"a": 0.5, "b": 0.5}, seed=0, by=None, clusters=None)
    with pytest.raises(errors.UserError, match=r"rows\.jsonl:2: .*mend them before the split"):
        split.split(read([check_cases.GOOD, {"text": ""}]), {"a": 0.5, "b": 0.5}, seed=0, by=None, clusters=None)


def test_shares_are_words_of_names_and_numbers():
    assert split.parse_shares("train=9,test=1") == {"train": 0.9, "test": 0.1}
    assert split.parse_shares("train=3e307,test=1e307,dev=1.5e308") == pytest.approx(
        {"train": 3 / 19, "test": 1 / 19, "dev": 15 / 19}
    )
    for text in ("train", "train=1", "train=x,test=1", "train=1,test=0", "../a=1,b=1", "a=1,a=2", "a=nan,b=1"):
        with pytest.raises(errors.UserError, match="parts"):
            split.parse_shares(text)
    with pytest.raises(errors.UserError, match=r"'a' is there twice; give each part its own name"):
        split.parse_shares("a=.5,b=.5,a =.2")


def test_a_mixture_has_the_shares_of_its_weights_and_no_row_twice(read):
    first = read(check_cases.MANY, "a.jsonl")
    second = read([{"text": f"Number {n}."} for n in range(20)], "b.jsonl")
    mixed = lambda weights, count, seed=0: mix.mix([first, second], weights, count=count, seed=seed).values
    made = mixed([3, 1], 40)
    kinds = collections.Counter("text" in row for row in made)
    assert kinds == {False: 30, True: 10}
    assert len({json.dumps(row) for row in made}) == 40
    assert made == mixed([3, 1], 40)
    assert made != mixed([3, 1], 40, seed=1)
    assert made == mixed([1.5e308, 5e307], 40)
    assert len(mixed([3, 1], None)) == 80  # all of the second: its share is short
    assert mixed([60, 20], None) == mixed(None, None)
    assert len(mixed(None, None)) == 80
    assert "text" not in made[0] or "text" not in made[1] or "text" not in made[2]  # not file by file


def test_a_row_that_several_files_have_is_taken_once_and_counted(read):
    texts = lambda numbers: [{"text": f"Number {n}."} for n in numbers]
    first = read([*texts(range(10)), *texts([3])], "a.jsonl")
    again = [{"extra": None, **row} for row in texts([3, 8])]  # written otherwise, and the same row
    second, third = read([*texts(range(20, 24)), *again], "b.jsonl"), read(texts([21, 30]), "c.jsonl")
    made = mix.mix([first, second, third], None, count=None, seed=0)
    assert made.shared == 3
    counts = collections.Counter(row["text"] for row in made.values)
    assert counts == collections.Counter(row["text"] for row in texts([*range(10), 3, 20, 21, 22, 23, 30]))
    few = mix.mix([first, second], [1, 1], count=8, seed=0)
    assert {row["text"] for row in few.values} > {row["text"] for row in texts(range(20, 24))}
    with pytest.raises(errors.UserError, match=r"9 rows: .*b\.jsonl has 4 rows that no file before it has, which is"):
        mix.mix([first, second], [1, 1], count=9, seed=0)
    with pytest.raises(errors.UserError, match=r"d\.jsonl: the files before it have all of its rows; leave it out"):
        mix.mix([first, read(texts([1, 2]), "d.jsonl")], None, count=None, seed=0)


def test_a_file_that_is_named_twice_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    mix.refuse_twice(["a.jsonl", "b.jsonl", "world:format/train", "world:format/test"])
    for paths, said in (
        (["a.jsonl", "b.jsonl", "a.jsonl"], r"a\.jsonl is named twice; name each file once"),
        (["a.jsonl", "./a.jsonl"], r"\./a\.jsonl is a\.jsonl, which is named already"),
        (["a.jsonl", str(tmp_path / "link.jsonl")], r"link\.jsonl is a\.jsonl, which is named already"),
        (["world:format/train", "world:format/train"], "world:format/train is named twice"),
    ):
        with pytest.raises(errors.UserError, match=said):
            mix.refuse_twice(paths)


def test_a_mixture_that_rows_do_not_suffice_for_or_of_two_kinds_is_refused(read):
    first = read(check_cases.MANY, "a.jsonl")
    pairs = read([check_cases.pair("Hi", "Hello.", "No.")], "p.jsonl")
    with pytest.raises(errors.UserError, match=r"61 rows: .*a\.jsonl has 60 rows, which is enough for 1 to 60"):
        mix.mix([first], [1], count=61, seed=0)
    with pytest.raises(errors.UserError, match=r"p\.jsonl \(preferences\): .*trained apart"):
        mix.mix([first, pairs], [1, 1], count=None, seed=0)
    for weights in ([1, 2], [0], [-1], [float("nan")]):
        with pytest.raises(errors.UserError, match="give one above 0 for each file"):
            mix.mix([first], weights, count=None, seed=0)
    with pytest.raises(errors.UserError, match="the least is below 1e-09 of all; leave its file out"):
        mix.mix([first, read([{"text": "One."}], "o.jsonl")], [1e300, 1e-300], count=None, seed=0)
