"""`data.py diff`, `log`, `show`: what changed between files, and what a file was made of."""

import json
from pathlib import Path

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
    assert json.loads(versions.place(path).read_text())["format"] == 2
    assert versions.history(path)[0] == old
    capsys.readouterr()


def test_a_broken_file_of_versions_is_named_and_left_alone(written):
    path = written(SOME)
    for text in ("{", "[]", '{"format": 1, "versions": [{"hash": 1}]}', '{"format": 9, "versions": []}'):
        versions.place(path).write_text(text)
        with pytest.raises(errors.UserError, match=r"a\.jsonl\.versions\.json: (no file of versions|format 9)"):
            versions.history(path)
        assert versions.place(path).read_text() == text
