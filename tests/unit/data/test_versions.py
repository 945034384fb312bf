"""`data.py diff`, `log`, `show`: what changed between files, and what a file was made of."""

import difflib
import itertools
import json
import os
from pathlib import Path
import random
import re
import time

import pytest

from ftjax import errors
from ftjax.data import difference, rows, versions
from tests import check_cases

SOME = check_cases.MANY[:18]  # fewer than clusters are made of
BASE = str(Path(__file__).resolve().parents[3] / "ftjax" / "assets" / "base")


def between(written, old, new):
    return difference.between(rows.read(written(old, "old.jsonl")), rows.read(written(new, "new.jsonl")))


def test_rows_are_added_removed_changed_moved_or_the_same(written):
    a, b, c, d = check_cases.MANY[:4]
    found = between(
        written, [a, b, c], [c, a, check_cases.chat("How tall is tower 1 of two?", "Tower 1 has 8 floors."), d]
    )
    assert (found.added, found.removed, found.same, found.moved) == ([4], [], 2, True)
    assert [(one.line, one.new_line) for one in found.changed] == [(2, 3)]
    assert found.changed[0].words == "messages[1].content: Tower 1 has [-7-]{+8+} floors."
    assert found.statistics["rows"] == (3, 4)
    same = between(written, [a, b], [a, b])
    assert (same.added, same.removed, same.changed, same.same, same.moved) == ([], [], [], 2, False)


def test_equal_rows_are_counted_one_by_one(written):
    row = check_cases.GOOD
    found = between(written, [row, row, row], [row])
    assert (found.same, found.removed, found.added) == (1, [2, 3], [])


def test_rows_with_ids_are_followed_whatever_changes_and_other_forms_of_a_row_train_the_same(written):
    old = [{"id": n, "prompt": f"Question {n}", "completion": f"Answer {n}."} for n in range(4)]
    new = [{**row, "prompt": "Another", "completion": "Another."} if row["id"] == 2 else row for row in old]
    found = between(written, old, new)
    assert [(one.line, one.words) for one in found.changed] == [
        (3, "prompt: [-Question 2-]{+Another+}; completion: [-Answer 2-]{+Another+}.")
    ]
    question = {"question": "When does Mill Bakery open?", "answer": "At 8."}
    found = between(written, [check_cases.GOOD], [question])
    assert (found.reshaped, found.changed, found.added, found.removed) == (1, [], [], [])


def test_rows_of_one_line_are_told_by_their_place_in_the_file():
    a, b, c = ({"text": f"Row {name}."} for name in "abc")
    old, new = (rows.of_values(name, [(1, row) for row in found]) for name, found in (("o", [a, b]), ("n", [c, b, a])))
    found = difference.between(old, new)
    assert (found.places, found.same) == (([], [0]), 2)
    assert '+ line 1: \'{"text": "Row c."}\'' in found.as_text(old, new)
    questions = [check_cases.chat(f"Question {n}?", "Old.") for n in range(2)]
    answers = [check_cases.chat(f"Question {n}?", "New.") for n in range(2)]
    old, new = (rows.of_values("x", [(1, row) for row in found]) for found in (questions, answers))
    assert [one.words for one in difference.between(old, new).changed] == ["messages[1].content: [-Old-]{+New+}."] * 2


def rewritten(words, kind):
    """Returns a text, and another in which every word, every word of one sentence, or two words are other ones."""
    old = [f"word{n}" for n in range(words)]
    if kind == "all":
        return " ".join(old), " ".join(f"other{n}" for n in range(words))
    if kind == "two":
        return " ".join(old), " ".join(["x" if n in (9, words - 9) else word for n, word in enumerate(old)])
    old = [word + "." * (n % 10 == 9) for n, word in enumerate(old)]
    return " ".join(old), " ".join([f"x{n}" if n // 10 == 5 and n % 10 < 9 else word for n, word in enumerate(old)])


@pytest.mark.parametrize(("kind", "parts"), [("all", 2), ("two", 4), ("sentence", 18)])
def test_an_answer_of_6000_words_that_was_rewritten_is_told_in_seconds(kind, parts):
    old, new = rewritten(6000, kind)
    began = time.process_time()
    said = difference.words({"text": old}, {"text": new})
    assert time.process_time() - began < 6  # at most 0.8 s where it was written; 45 s and more without a bound
    marks = re.findall(r"\[-(.*?)-\]|\{\+(.*?)\+\}", said)
    assert len(marks) == parts
    if kind == "all":
        assert said == f"text: [-{old}-]{{+{new}+}}"
    else:
        assert all(len(one.split()) == 1 for pair in marks for one in pair if one)


def test_what_is_told_of_long_texts_leads_from_one_to_the_other():
    draw = random.Random(0)
    sentence = lambda: (
        " ".join(f"word{draw.randrange(900)}" for _ in range(draw.randrange(3, 20))) + draw.choice(".!\n")
    )
    for _ in range(6):
        old = [sentence() for _ in range(400)]
        new = [one if draw.random() < 0.8 else draw.choice(("", sentence(), one + " " + sentence())) for one in old]
        before, after = (difference._WORDS.findall(" ".join(side)) for side in (old, new))
        steps = difference._steps(before, after)
        assert [(step[1], step[3]) for step in steps] == [(0, 0), *((step[2], step[4]) for step in steps[:-1])]
        assert steps[-1][2:5:2] == (len(before), len(after))
        assert all((kind == "equal") == (before[a:b] == after[c:d]) for kind, a, b, c, d in steps)
        assert all(a[0] != "equal" or b[0] != "equal" for a, b in itertools.pairwise(steps))
        assert sum(b - a for kind, a, b, *_ in steps if kind == "equal") > 0.7 * len(before)


def test_ordinary_texts_are_told_as_difflib_pairs_their_words():
    draw = random.Random(0)
    for _ in range(20):
        before, after = ([f"word{draw.randrange(99)}" for _ in range(150)] for _ in range(2))
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        assert difference._steps(before, after) == matcher.get_opcodes()


def test_long_texts_show_the_words_around_a_change_and_private_data_is_masked():
    old = check_cases.LONG
    new = old.replace("rolls", "buns")
    said = difference.words({"text": old}, {"text": new})
    assert "[-rolls-]{+buns+}" in said
    assert len(said) < 90
    said = difference.words({"text": "Hi"}, {"text": "Write to jane.doe@corp-mail.org", "n": "\x1b"})
    assert "jane.doe@corp-mail.org" not in said
    assert "\x1b" not in said


def test_diff_exits_with_1_where_files_differ_and_its_json_says_how(main, written, capsys):
    old, new = written(check_cases.MANY[:3], "o.jsonl"), written(check_cases.MANY[1:4], "n.jsonl")
    assert main(["diff", old, old]) == 0
    capsys.readouterr()
    assert main(["diff", old, new, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["added"], told["removed"], told["same"]) == ([3], [1], 2)
    assert main(["diff", old, new]) == 1
    assert "1 added, 1 removed, 0 changed, 2 the same" in capsys.readouterr().out


def test_a_hash_is_of_the_rows_and_not_of_how_they_are_written(written):
    a, b = check_cases.MANY[:2]
    first = versions.now(written([a, b]))
    spaced = json.dumps({**a, "none": None}, indent=None, separators=(" ,  ", " : "))
    assert versions.now(written([spaced, b], "spaced.jsonl")) == first
    assert versions.now(written([b, a], "moved.jsonl")) != first
    assert versions.now(written([a], "fewer.jsonl")) != first


def test_what_a_verb_writes_has_a_version_that_names_its_parents_and_log_follows_them(main, written, tmp_path, capsys):
    path = written(SOME)
    assert main(["log", path, "--save", "as collected"]) == 0
    assert main(["split", path, "--out", str(tmp_path / "parts"), "--parts", "train=5,test=1"]) == 0
    train = str(tmp_path / "parts" / "train.jsonl")
    assert main(["convert", train, "--to", "alpaca", "--out", str(tmp_path / "alpaca.jsonl")]) == 0
    capsys.readouterr()
    assert main(["log", str(tmp_path / "alpaca.jsonl"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["depth"], Path(one["file"]).name, one["rows"]) for one in told["versions"]] == [
        (0, "alpaca.jsonl", 15),
        (1, "train.jsonl", 15),
        (2, "a.jsonl", 18),
    ]
    assert told["versions"][2]["findings"]["errors"] == 0
    assert told["versions"][0]["parents"] == [{"file": train, "hash": versions.now(train)}]
    assert main(["split", path, "--out", str(tmp_path / "parts")]) == 2  # never written over
    assert "is there already" in capsys.readouterr().err


def test_a_file_that_was_edited_since_its_version_is_said_to_be_until_it_is_saved(main, written, capsys):
    path = written(SOME)
    assert versions.changed(path) is None  # it has none yet
    main(["log", path, "--save", "first"])
    assert versions.changed(path) is None
    written(SOME[:15])
    assert versions.changed(path).startswith(f"{path} has changed since its version ")
    capsys.readouterr()
    assert main(["log", path]) == 1
    assert "has changed since" in capsys.readouterr().out
    assert main(["log", path, "--save", "fewer"]) == 0
    assert [one.note for one in versions.history(path)] == ["first", "fewer"]
    assert versions.history(path)[1].parents == (versions.Parent(path, versions.history(path)[0].hash),)
    main(["log", path, "--save", "again"])
    assert "nothing was saved" in capsys.readouterr().out
    assert len(versions.history(path)) == 2


def test_a_file_with_lines_that_are_no_rows_has_versions_too(main, written, capsys):
    path = written([*SOME, '{"broken'])
    assert main(["log", path, "--save", "broken"]) == 0
    assert versions.changed(path) is None
    assert versions.history(path)[0].findings["errors"] == 1
    written([*SOME, check_cases.GOOD])
    assert "has changed since" in versions.changed(path)
    capsys.readouterr()


def test_show_prints_one_version_by_the_beginning_of_its_hash(main, written, capsys):
    path = written(SOME)
    assert main(["show", path]) == 2
    assert "has no version" in capsys.readouterr().err
    main(["log", path, "--save", "first"])
    capsys.readouterr()
    short = versions.now(path)[:8]
    assert main(["show", path, short]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["hash"] == versions.now(path)
    assert told["rows"] == 18
    assert main(["show", path, "beef"]) == 2
    assert f"its last ones: {short}" in capsys.readouterr().err


def test_what_check_finds_is_kept_with_the_version_of_that_content(main, written, tmp_path, capsys):
    path = written(SOME)
    assert main(["check", path, "--save", "checked"]) == 0
    assert "saved: version" in capsys.readouterr().out
    (first,) = versions.history(path)
    assert (first.note, first.template, first.tokens) == ("checked", None, None)
    assert first.findings["errors"] == 0
    assert main(["check", path, "--save", "again"]) == 0
    assert "nothing was saved" in capsys.readouterr().out
    assert versions.history(path) == [first]
    assert main(["check", path, "--save", "with a model", "--model", BASE, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (known,) = versions.history(path)
    assert (known.note, known.tokens) == ("checked", told["summary"]["tokens"]["all"])
    assert (known.template["name"], len(known.template["hash"])) == ("(the tokenizer's own)", 64)
    assert known.findings == {name: told["summary"][name] for name in ("errors", "warnings", "notes")}
    assert f"{known.tokens:,} tokens" in versions.told(known)
    assert main(["split", path, "--out", str(tmp_path / "parts"), "--parts", "train=5,test=1"]) == 0
    part = str(tmp_path / "parts" / "train.jsonl")
    assert versions.history(part)[0].findings is None  # split looked for nothing
    assert main(["check", part, "--save", "looked at"]) == 0
    (made,) = versions.history(part)
    assert made.findings is not None
    assert made.parents == (versions.Parent(path, known.hash),), "it stays what split made"
    written([*SOME, '{"broken'])
    assert main(["check", path, "--save", "broken"]) == 1
    assert [one.findings["errors"] for one in versions.history(path)] == [0, 1]
    capsys.readouterr()


def test_versions_of_an_older_ftjax_are_read_and_kept(main, written, capsys):
    path = written(SOME)
    main(["log", path, "--save", "first"])
    told = json.loads(versions.place(path).read_text())
    for name in ("template", "tokens"):
        del told["versions"][0][name]
    versions.place(path).write_text(json.dumps({"format": 1, "versions": told["versions"]}))
    (old,) = versions.history(path)
    assert (old.note, old.template, old.tokens) == ("first", None, None)
    written(SOME[:15])
    assert main(["log", path, "--save", "second"]) == 0
    assert json.loads(versions.place(path).read_text())["format"] == 3
    assert versions.history(path)[0] == old
    capsys.readouterr()


def test_a_broken_file_of_versions_is_named_and_left_alone(written):
    path = written(SOME)
    for text in ("{", "[]", '{"format": 1, "versions": [{"hash": 1}]}', '{"format": 9, "versions": []}', "[" * 99_999):
        versions.place(path).write_text(text)
        with pytest.raises(errors.UserError, match=r"a\.jsonl\.versions\.json: (no file of versions|format 9)"):
            versions.history(path)
        assert versions.place(path).read_text() == text


WRONG = {
    "hash": (5, None, ["a"]),
    "rows": ("18", -1, True, 18.0, None),
    "kind": (1, None),
    "characters": ("9", None),
    "created": (0, None),
    "command": (["data.py"], None),
    "note": (None, 3),
    "parents": (
        None,
        {},
        [1],
        [["a", "b"]],
        [{"file": "a"}],
        [{"file": 1, "hash": "a"}],
        [{"file": "a", "hash": None}],
    ),
    "findings": ([1], 3, {"errors": "many"}, {"errors": None}),
    "template": ("chatml", {"name": "chatml"}, {"name": "chatml", "hash": 4}),
    "tokens": ("9", -2, 1.5),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_type_in_a_file_of_versions_is_named_with_its_field(main, written, capsys, name):
    path = written(SOME)
    main(["log", path, "--save", "first"])
    told = json.loads(versions.place(path).read_text())
    assert told["versions"][0].keys() == WRONG.keys()
    for value in WRONG[name]:
        broken = [told["versions"][0], {**told["versions"][0], name: value}]
        versions.place(path).write_text(json.dumps({**told, "versions": broken}))
        capsys.readouterr()
        for words in (["log", path], ["show", path], ["log", path, "--save", "again"]):
            assert main(words) == 2
            err = capsys.readouterr().err
            assert f"a.jsonl.versions.json: no file of versions: versions[1].{name} is {value!r}, but must be " in err
            assert err.endswith("; restore it, or move it away\n")
    for entry in ({}, [], None, 4, {**told["versions"][0], "hsah": "a"}):
        versions.place(path).write_text(json.dumps({**told, "versions": [entry]}))
        with pytest.raises(errors.UserError, match=r"versions\[0\] (is|has)"):
            versions.history(path)
    for whole in (None, {}, {"format": 3}, {"versions": []}, {"format": 3, "versions": {}}):
        versions.place(path).write_text(json.dumps(whole))
        with pytest.raises(errors.UserError, match="it must be"):
            versions.history(path)
    for form in (0, True, "3", None, 4):
        versions.place(path).write_text(json.dumps({**told, "format": form}))
        with pytest.raises(errors.UserError, match=r"format .*, but this ftjax reads 1 to 3"):
            versions.history(path)


@pytest.fixture
def line(main, written, tmp_path, monkeypatch, capsys):
    """Makes lin/raw/a.jsonl and of it lin/b.jsonl, both named from the folder above, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lin" / "raw").mkdir(parents=True)
    written(SOME, "lin/raw/a.jsonl")
    main(["log", "lin/raw/a.jsonl", "--save", "raw"])
    main(["convert", "lin/raw/a.jsonl", "--to", "alpaca", "--out", "lin/b.jsonl"])
    capsys.readouterr()
    return tmp_path


def traced(main, capsys, path):
    """Returns (depth, file, note) of what `log` knows of a file."""
    assert main(["log", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["versions"]
    return [(one["depth"], one["file"], one["note"]) for one in told]


def test_what_a_file_was_made_of_is_found_from_any_folder_and_when_the_folder_has_moved(
    main, line, monkeypatch, capsys
):  # fmt: skip
    stored = json.loads((line / "lin/b.jsonl.versions.json").read_text())
    assert [one["file"] for one in stored["versions"][0]["parents"]] == ["raw/a.jsonl"]
    notes = ("converted to alpaca", "raw")
    assert traced(main, capsys, "lin/b.jsonl") == [(0, "lin/b.jsonl", notes[0]), (1, "lin/raw/a.jsonl", notes[1])]
    whole = str(line / "lin" / "b.jsonl")
    assert traced(main, capsys, whole) == [(0, whole, notes[0]), (1, str(line / "lin/raw/a.jsonl"), notes[1])]
    monkeypatch.chdir(line / "lin")
    for name in ("b.jsonl", "./b.jsonl", "raw/../b.jsonl"):
        assert traced(main, capsys, name) == [(0, name, notes[0]), (1, "raw/a.jsonl", notes[1])]
    monkeypatch.chdir(line / "lin" / "raw")
    assert traced(main, capsys, "../b.jsonl") == [(0, "../b.jsonl", notes[0]), (1, "../raw/a.jsonl", notes[1])]
    monkeypatch.chdir(line)
    (line / "lin").rename(line / "moved")
    assert traced(main, capsys, "moved/b.jsonl")[1] == (1, "moved/raw/a.jsonl", "raw")


def test_a_file_of_that_name_that_never_held_the_rows_is_not_taken_for_what_a_file_was_made_of(
    main, line, written, capsys
):  # fmt: skip
    written(SOME[:3], "raw.jsonl")
    (line / "lin/raw/a.jsonl.versions.json").unlink()
    (line / "lin/raw/a.jsonl").unlink()
    (line / "raw.jsonl").rename(line / "lin/raw/a.jsonl")
    main(["log", "lin/raw/a.jsonl", "--save", "another"])
    capsys.readouterr()
    assert traced(main, capsys, "lin/b.jsonl") == [(0, "lin/b.jsonl", "converted to alpaca")]


def test_of_older_files_of_versions_parents_are_found_by_their_hash_and_named_anew_when_one_is_added(
    main, line, written, monkeypatch, capsys
):  # fmt: skip
    for name in ("lin/raw/a.jsonl", "lin/b.jsonl"):
        place = versions.place(name)
        told = json.loads(place.read_text())
        for parent in told["versions"][0]["parents"]:
            parent["file"] = "lin/raw/a.jsonl"  # as seen from where the command ran
        place.write_text(json.dumps({**told, "format": 2}))
    expected = {"": "lin/raw/a.jsonl", "lin": "raw/a.jsonl", "lin/raw": "a.jsonl"}
    for folder, parent in expected.items():
        monkeypatch.chdir(line / folder)
        assert traced(main, capsys, os.path.relpath(line / "lin/b.jsonl"))[1:] == [(1, parent, "raw")]
    (line / "lin/lin/raw").mkdir(parents=True)
    written(SOME[:2], "lin/lin/raw/a.jsonl")  # nearer, of that name, and not it
    monkeypatch.chdir(line / "lin")
    main(["log", "lin/raw/a.jsonl", "--save", "another"])
    main(["check", "b.jsonl", "--save", "checked"])
    capsys.readouterr()
    stored = json.loads((line / "lin/b.jsonl.versions.json").read_text())
    assert (stored["format"], stored["versions"][0]["parents"][0]["file"]) == (3, "raw/a.jsonl")


def test_a_parent_on_another_disk_is_named_whole():
    assert versions._seen(Path("/home/me/data"), "/mnt/big/a.jsonl") == "/mnt/big/a.jsonl"
    assert versions._seen(Path("/home/me/data"), "/home/raw/a.jsonl") == "../../raw/a.jsonl"
