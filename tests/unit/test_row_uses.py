"""What became of each row of the files that a run reads, for every kind of data, and what its folder says of them."""

import json
import types

import numpy as np
import pytest

from ftjax import training_data
from ftjax.data import tokenizer, used, versions
from ftjax.errors import UserError
from tests import bases

LONG = {"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "red " * 60}]}


@pytest.fixture(scope="module")
def read(tiny_base):
    """Returns a function: kind of data, sections of the config -> for each file its name and the uses of its lines."""
    tok = tokenizer.load(tiny_base)
    shard = training_data.loader.Shard(0, 1)

    def uses(kind, *, data, eval_path="", **sections):
        d = {
            "paths": data, "weights": (), "max_length": 48, "truncation": "drop", "train_on": "assistant",
            "equal": "drop", "layout": "padded", "batch_size": 4, "buckets": (), "prefix": "shared", "row_length": 0,
        }  # fmt: skip
        e = {"path": eval_path, "rows": 3, "holdout": 0.25}
        c = {"data": d | sections.pop("more", {}), "eval": e, "seed": 0, **sections}
        aim = types.SimpleNamespace(data=kind, reward="normalise" in c, mismatched=False)
        found = training_data.read(c, aim, tok, None, shard)
        lines = lambda one: {int(where.rpartition(":")[2]): use for where, use in one.uses.items()}
        return [(lines(one), one.rest) for one in found.sources], found

    return uses


def test_chats_are_trained_on_held_out_or_too_long(read, tmp_path):
    path = str(bases.write_rows(tmp_path / "a.jsonl", [*bases.rows(4), LONG, *bases.rows(8)[5:]]))
    ((lines, _),), found = read("rows", data=(path,))
    assert set(lines) == set(range(1, 9))
    assert lines[5] == "longer than 48 tokens"
    named = {use: {int(one.where.rpartition(":")[2]) for one in rows} for use, rows in (
        (used.TRAINED, found.train[0]), (used.HELD_OUT, found.chosen),
    )}  # fmt: skip
    assert {use: {line for line, own in lines.items() if own == use} for use in named} == named
    assert all(named.values())
    assert read("rows", data=(path,))[0] == [(lines, used.NOT_READ)], "the same from the cache"


def test_a_file_of_its_own_is_held_out_as_far_as_it_is_asked(read, tmp_path):
    train, test = (str(bases.write_rows(tmp_path / f"{name}.jsonl", bases.rows(5))) for name in "ab")
    (first, second), _ = read("rows", data=(train,), eval_path=test)
    assert first == (dict.fromkeys(range(1, 6), used.TRAINED), used.NOT_READ)
    assert second == (dict.fromkeys(range(1, 4), used.HELD_OUT), used.NOT_READ)


KINDS = {
    "rows": bases.rows(24),
    "pairs": bases.pairs(24),
    "prompts": [{"prompt": row["prompt"]} for row in bases.pairs(24)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_equal_to_a_held_out_one_is_trained_on_in_whichever_file_and_form_it_stands(read, tmp_path, kind):
    rows = KINDS[kind]
    spaced = [dict(reversed(row.items())) | {"note": "a copy"} for row in rows]
    once = str(bases.write_rows(tmp_path / "once.jsonl", rows))
    twice = str(bases.write_rows(tmp_path / "twice.jsonl", rows + spaced))
    ((alone, _),), one = read(kind, data=(once,))
    ((first, _), (second, _)), two = read(kind, data=(twice, once))
    assert training_data.twins(one) == 0
    assert set(alone.values()) == {used.TRAINED, used.HELD_OUT}, "nothing changes where no row comes twice"
    held = {(line - 1) % 24 for line, use in first.items() if use == used.HELD_OUT}
    assert held
    trained = {(line - 1) % 24 for lines in (first, second) for line, use in lines.items() if use == used.TRAINED}
    assert trained == set(range(24)) - held
    twins = sum(use == training_data.TWIN for lines in (first, second) for use in lines.values())
    assert twins == training_data.twins(two) == 3 * len(held) - len(two.chosen)
    given = {(int(row.where.rpartition(":")[2]) - 1) % 24 for rows in two.train for row in rows}
    assert not given & held


def test_a_file_of_one_row_many_times_has_nothing_to_hold_out(read, tmp_path):
    path = str(bases.write_rows(tmp_path / "a.jsonl", bases.rows(1) * 8))
    with pytest.raises(UserError, match="each of the 6 rows to train on is equal to one that is held out"):
        read("rows", data=(path,))


def test_an_answer_behind_the_cut_is_named(read, tmp_path):
    far = {"messages": [{"role": "user", "content": "red " * 90}, {"role": "assistant", "content": "red!"}]}
    path = str(bases.write_rows(tmp_path / "a.jsonl", [*bases.rows(7), far]))
    ((lines, _),), _ = read("rows", data=(path,), more={"truncation": "truncate"})
    assert lines[8] == "its answer begins behind 48 tokens"


def test_preferences_say_why_they_were_left_out(read, tmp_path):
    found = bases.pairs(12)
    found[2] |= {"rejected": f" {found[2]['chosen']} "}
    found[4] = {"prompt": "Say a.", "completions": ["a", "b"], "ranks": [1, 1]}
    found[6] |= {"chosen": "red " * 60}
    path = str(bases.write_rows(tmp_path / "a.jsonl", found))
    measured = str(bases.write_rows(tmp_path / "n.jsonl", bases.pairs(3)))
    ((lines, _), (others, rest)), _ = read("pairs", data=(path,), normalise={"path": measured, "rows": 3})
    assert {line: lines[line] for line in (3, 5, 7)} == {
        3: "its completions are equal but for white space",
        5: "all ranks are tied",
        7: "longer than 48 tokens",
    }
    assert set(lines.values()) - {lines[3], lines[5], lines[7]} == {used.TRAINED, used.HELD_OUT}
    assert (others, rest) == ({1: used.MEASURED, 2: used.MEASURED}, used.NOT_READ)  # two completions a row
    ((lines, _),), _ = read("pairs", data=(path,), more={"truncation": "truncate"})
    assert lines[7] == "a completion alone is longer than 48 tokens"


def test_prompts_and_the_text_beside_them_are_told_apart(read, tmp_path):
    asked = [{"prompt": f"Say {word}."} for word in bases.WORDS]
    asked[3] = {"prompt": "red " * 90}
    path = str(bases.write_rows(tmp_path / "a.jsonl", asked))
    text = str(bases.write_rows(tmp_path / "t.jsonl", [{"text": "red boat"}, {"text": "blue " * 90}]))
    ((lines, _), (beside, _)), _ = read("prompts", data=(path,), more={"text": text})
    assert lines[4] == "longer than 48 tokens"
    assert set(lines.values()) == {lines[4], used.TRAINED, used.HELD_OUT}
    assert beside == {1: used.BESIDE, 2: "longer than 48 tokens"}


def test_a_run_keeps_the_version_of_its_data_and_what_became_of_each_row(finished, tiny_rows):
    told = json.loads((finished.folder / "data.json").read_text())
    (file,) = told["files"]
    assert (file["path"], file["hash"], file["rows"]) == (str(tiny_rows), versions.now(str(tiny_rows)), 60)
    assert len(told["template"]["hash"]) == 64
    assert f"{tiny_rows} (version `{file['hash'][:12]}`)" in (finished.folder / "adapter" / "README.md").read_text()
    table = used.load(finished.folder / used.ROWS)
    counts = dict(zip(table.names, np.bincount(table.uses).tolist(), strict=True))
    assert counts == {used.HELD_OUT: finished.summary["rows"], used.TRAINED: 60 - finished.summary["rows"]}
    (one,) = used.of_row(finished.folder, str(tiny_rows), 7, used.row_at(str(tiny_rows), 7)).uses
    assert (one.line, one.ended) == (7, "done at step 4")
    assert one.use in counts
