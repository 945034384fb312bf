"""The verbs of scripts/data.py as a user meets them: what is refused is one sentence, before anything is written."""

import json
import os

import pytest

from ftjax.data import versions
from tests import check_cases

SOME = check_cases.MANY[:18]


def refused(capsys):
    """Returns the one line on stderr."""
    _, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "words",
    [
        ("split", "a.jsonl", "--out", "parts"),
        ("mix", "a.jsonl", "--out", "made.jsonl"),
        ("select", "a.jsonl", "--diverse", "2", "--out", "made.jsonl"),
        ("score", "a.jsonl", "--model", "base"),
    ],
)
def test_a_seed_below_0_is_refused_by_every_verb_that_has_one(main, written, tmp_path, monkeypatch, capsys, words):
    written(SOME)
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--seed", "-1"]) == 2
    assert "--seed -1 must be at least 0" in refused(capsys)
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_an_expression_may_begin_with_a_minus_and_one_that_is_missing_is_named(main, written, tmp_path, capsys):
    path = written(SOME)
    for n, words in enumerate((["--keep", "-errors>-1"], ["--keep=-errors>-1"], ["--keep", "-errors > -1"])):
        out = tmp_path / f"{n}.jsonl"
        assert main(["select", path, *words, "--out", str(out)]) == 0
        assert len(out.read_text().splitlines()) == 18
    capsys.readouterr()
    assert main(["select", path, "--keep", "--out", str(tmp_path / "no.jsonl")]) == 2
    assert "argument --keep: expected one argument" in refused(capsys)


@pytest.mark.parametrize("text", ["+".join(["errors"] * 900), "not " * 900 + "errors"])
def test_an_expression_without_end_is_one_sentence_that_shows_its_beginning(main, written, tmp_path, capsys, text):
    assert main(["select", written(SOME), "--keep", text, "--out", str(tmp_path / "made.jsonl")]) == 2
    assert len(refused(capsys)) < 300


UNREAD = {
    "words.jsonl": b"hello\nthere\n",
    "bytes.jsonl": bytes(range(128, 256)) * 9,
    "utf16.jsonl": '{"text": "Hi"}\n'.encode("utf-16"),
    "null.jsonl": b"null\n",
    "null.json": b"null",
    "words.json": b"hello",
    "latin.csv": "prompt,completion\ncafé,yes\n".encode("latin-1"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_file_of_which_no_row_can_be_read_is_status_2_with_its_findings(main, tmp_path, capsys, name):
    (tmp_path / name).write_bytes(UNREAD[name])
    assert main(["check", str(tmp_path / name), "--json", "--report", str(tmp_path / "page")]) == 2
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["summary"]["errors"] == len([one for one in told["findings"] if one["severity"] == "error"]) > 0
    assert f"error: {tmp_path / name}: no row can be read; the findings say why\n" in err
    assert (tmp_path / "page" / "index.html").exists()


def test_a_file_of_which_a_row_can_be_read_is_status_1_whatever_training_says_of_it(main, written, capsys):
    assert main(["check", written([{"x": 1}], "columns.jsonl")]) == 1
    assert main(["check", written(["hello", {"x": 1}], "both.jsonl")]) == 1
    assert capsys.readouterr().err == ""


def test_versions_that_cannot_be_gone_on_with_stop_a_verb_before_it_writes(main, written, tmp_path, capsys):
    path = written([*SOME, SOME[0]])
    parts = tmp_path / "parts"
    parts.mkdir()
    verbs = {
        parts / "test.jsonl": ["split", path, "--out", str(parts)],
        tmp_path / "mixed.jsonl": ["mix", path, "--out", str(tmp_path / "mixed.jsonl")],
        tmp_path / "alpaca.jsonl": ["convert", path, "--to", "alpaca", "--out", str(tmp_path / "alpaca.jsonl")],
        tmp_path / "kept.jsonl": ["select", path, "--keep", "errors == 0", "--out", str(tmp_path / "kept.jsonl")],
        tmp_path / "a.fixed.jsonl": ["check", path, "--fix"],
    }
    for out, words in verbs.items():
        place = versions.place(str(out))
        place.write_text("{")
        for _ in range(2):
            assert main(words) == 2
            assert f"{place}: no file of versions" in refused(capsys)
            assert not list(out.parent.glob("t*.jsonl"))
            assert not out.exists()
        place.unlink()
        assert main(words) in (0, 1)
        capsys.readouterr()
        assert versions.history(str(out))[-1].hash == versions.now(str(out))


def test_a_mixture_says_how_many_rows_several_files_have(main, written, tmp_path, capsys):
    first, second = written(SOME[:10], "a.jsonl"), written(SOME[8:], "b.jsonl")
    out = tmp_path / "mixed.jsonl"
    assert main(["mix", first, second, "--out", str(out)]) == 0
    assert "2 rows that a file before theirs has too were taken once" in capsys.readouterr().out
    assert sorted(out.read_text().splitlines()) == sorted(map(json.dumps, SOME))
    assert "; 2 rows that a file before" in versions.history(str(out))[0].note
    assert main(["mix", first, first, "--out", str(tmp_path / "twice.jsonl")]) == 2
    assert f"{first} is named twice" in refused(capsys)
    assert main(["mix", first, second, "--weights", "1e308,1e308", "--out", str(tmp_path / "large.jsonl")]) == 0
    assert len((tmp_path / "large.jsonl").read_text().splitlines()) == 16
    assert "taken once" in capsys.readouterr().out


def test_a_misspelt_file_is_said_to_be_missing_and_the_nearest_is_named(main, written, capsys):
    path = written(SOME, "chats.jsonl")
    for verb in ("log", "show"):
        assert main([verb, path.replace("chats", "chts")]) == 2
        assert "chts.jsonl: no such file (did you mean 'chats.jsonl'?)" in refused(capsys)
    assert main(["log", path]) == 0
    assert f"{path} has no version; --save NOTE makes one" in capsys.readouterr().out


def test_the_versions_of_a_file_that_is_gone_are_shown_and_that_it_is_gone(main, written, tmp_path, capsys):
    path = written(SOME)
    main(["log", path, "--save", "first"])
    short = versions.now(path)[:12]
    (tmp_path / "a.jsonl").unlink()
    capsys.readouterr()
    assert main(["log", path]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(short)
    assert last.startswith(f"{path} is gone; its last version, {short} of 20")
    assert main(["log", path, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["gone"], told["changed"], len(told["versions"])) == (True, True, 1)
    assert main(["show", path]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["hash"].startswith(short)
    assert err == f"{path} is gone; its versions are still there\n"
    assert main(["log", path, "--save", "second"]) == 2
    assert "no such file" in refused(capsys)


def test_a_beginning_of_several_hashes_is_refused_and_they_are_named(main, written, capsys):
    path = written(SOME)
    main(["log", path, "--save", "first"])
    place = versions.place(path)
    told = json.loads(place.read_text())
    first = told["versions"][0]
    others = [{**first, "hash": "ab" * 12 + end, "note": end} for end in ("1", "2", "1")]
    place.write_text(json.dumps({**told, "versions": [first, *others]}))
    capsys.readouterr()
    assert main(["show", path, "ab" * 12]) == 2
    said = refused(capsys)
    assert f"has 2 versions {'ab' * 12!r}: {'ab' * 12}2 of 20" in said
    assert f"{'ab' * 12}1 of 20" in said
    assert main(["show", path, "ab" * 12 + "1"]) == 0  # it was the same content twice
    assert json.loads(capsys.readouterr().out)["note"] == "1"


def test_parts_of_one_name_are_refused(main, written, tmp_path, capsys):
    assert main(["split", written(SOME), "--parts", "a=.5,b=.5,a=.2", "--out", str(tmp_path / "parts")]) == 2
    assert "'a' is there twice" in refused(capsys)
    assert not (tmp_path / "parts").exists()
