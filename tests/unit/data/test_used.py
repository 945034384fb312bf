"""`data.py show --row --runs` and `log --runs`: which runs read a row or a version, and what became of it there."""

import json
from pathlib import Path

import numpy as np
import pytest

from ftjax import errors
from ftjax.data import used, versions
from tests import check_cases

A, B, C, D, E = check_cases.MANY[:5]


@pytest.fixture
def ran(tmp_path):
    """Returns a function: name, files and what became of their lines -> the folder that a run on them leaves."""

    def run(name, *sources, done=True):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        files = [
            used.Source(path, {f"{path}:{line}": use for line, use in uses.items()}, used.NOT_READ)
            for path, uses in sources
        ]
        facts, table = used.seen(files)
        (folder / used.FACTS).write_text(json.dumps({"files": facts}))
        (folder / used.ROWS).write_bytes(table.dumped())
        (folder / "config.json").write_text("{}")
        if done:
            (folder / "summary.json").write_text('{"step": 12}')
            (folder / "DONE").touch()
        return folder

    return run


def asked(tmp_path, path, line):
    return used.of_row(tmp_path / "runs", path, line, used.row_at(path, line))


def test_a_row_says_what_became_of_it_in_each_run_wherever_it_stands_now(written, ran, tmp_path):
    first = written([A, B, C, D], "first.jsonl")
    uses = {1: used.TRAINED, 2: used.HELD_OUT, 3: "longer than 64 tokens"}
    ran("one", (first, uses))
    ran("sweep/two", (written([D], "other.jsonl"), {1: used.TRAINED}), done=False)
    moved = written([E, D, C, B, A], "moved.jsonl")
    found = {line: [(one.line, one.use) for one in asked(tmp_path, moved, line).uses] for line in range(1, 6)}
    assert found == {
        1: [],
        2: [(4, used.NOT_READ), (1, used.TRAINED)],
        3: [(3, "longer than 64 tokens")],
        4: [(2, used.HELD_OUT)],
        5: [(1, used.TRAINED)],
    }
    one, two = asked(tmp_path, moved, 2).uses
    assert (one.run, one.ended) == (str(tmp_path / "runs/one"), "done at step 12")
    assert (two.run, two.ended, two.version) == (
        str(tmp_path / "runs/sweep/two"),
        "not finished",
        versions.now(two.file),
    )


def test_a_row_that_was_edited_is_another_one_and_the_line_says_what_the_run_read(written, ran, tmp_path):
    path = written([A, B])
    ran("one", (path, {1: used.TRAINED, 2: used.TRAINED}))
    edited = json.loads(json.dumps(B))
    edited["messages"][1]["content"] += " Indeed."
    written([A, edited])
    answer = asked(tmp_path, path, 2)
    assert answer.uses == []
    assert [(one.line, one.use) for one in answer.other] == [(2, used.TRAINED)]
    assert "read by none of 1 run" in answer.as_text()
    assert f"read another row in line 2 of {path}" in answer.as_text()
    written([A, json.dumps(B, indent=None, separators=(" , ", " :  "))])  # written otherwise: the same row
    assert [one.line for one in asked(tmp_path, path, 2).uses] == [2]


def test_a_row_that_is_there_twice_names_both_lines_and_both_files(written, ran, tmp_path):
    train, test = written([A, B, A], "train.jsonl"), written([A], "test.jsonl")
    ran("one", (train, {1: used.TRAINED, 2: used.TRAINED, 3: used.HELD_OUT}), (test, {1: used.HELD_OUT}))
    found = asked(tmp_path, train, 1).uses
    assert [(Path(one.file).name, one.line, one.use) for one in found] == [
        ("test.jsonl", 1, used.HELD_OUT),
        ("train.jsonl", 1, used.TRAINED),
        ("train.jsonl", 3, used.HELD_OUT),
    ]


def test_runs_of_an_older_ftjax_are_named_as_not_known(main, written, ran, tmp_path, capsys):
    path = written([A, B])
    old = ran("old", (path, {1: used.TRAINED}))
    (old / used.ROWS).unlink()
    (old / used.FACTS).write_text('{"paths": ["a.jsonl"], "hash": "1"}')
    runs = str(tmp_path / "runs")
    assert main(["show", path, "--row", "1", "--runs", runs]) == 0
    assert f"read by none of 0 runs\nnot known of 1 run of an older ftjax: {old}" in capsys.readouterr().out
    assert main(["log", path, "--runs", runs]) == 0
    assert f"not known of 1 run of an older ftjax: {old}" in capsys.readouterr().out
    (old / used.ROWS).write_bytes(b"PK")
    assert main(["show", path, "--row", "1", "--runs", runs]) == 2
    assert "rows.npz: no table of rows" in capsys.readouterr().err


def test_show_tells_a_row_its_hash_and_its_runs_with_private_data_masked(main, written, ran, tmp_path, capsys):
    path = written([A, check_cases.chat("Who is it?", "jane.doe@corp-mail.org")])
    ran("one", (path, {1: used.TRAINED, 2: used.HELD_OUT}))
    runs = str(tmp_path / "runs")
    assert main(["show", path, "--row", "2", "--runs", runs]) == 0
    said = capsys.readouterr().out
    assert "jane.doe@" not in said
    assert versions.row_hash(used.row_at(path, 2)) in said
    assert said.endswith(f"{runs}/one (done at step 12): line 2 of {path}: held out\n")
    assert main(["show", path, "--row", "1", "--runs", runs, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["row"] == A
    assert [one["use"] for one in told["uses"]] == ["training set"]
    for words, says in (
        (["--row", "3"], "has no row in line 3; it has 2 rows"),
        (["--row", "1", "--runs", str(tmp_path)[:-1]], "no such folder"),
        (["abc", "--row", "1"], "leave out the version"),
        (["--runs", runs], "go with --row LINE"),
    ):
        assert main(["show", path, *words]) == 2
        assert says in capsys.readouterr().err


def test_log_names_the_runs_that_read_each_version(main, written, ran, tmp_path, capsys):
    path = written([A, B])
    main(["log", path, "--save", "first"])
    ran("one", (path, {}))
    written([A, B, C])
    main(["log", path, "--save", "second"])
    ran("two", (path, {}))
    written([A, B, C, D])
    ran("three", (path, {}))
    capsys.readouterr()
    runs = str(tmp_path / "runs")
    assert main(["log", path, "--runs", runs]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert ["second" in lines[0], "first" in lines[2]] == [True, True]
    assert lines[1::2][:2] == [f"  read by {runs}/{name} (done at step 12)" for name in ("two", "one")]
    assert lines[4] == f"what it holds now was read by {runs}/three (done at step 12)"
    assert main(["log", path, "--runs", runs, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert sorted(name for found in told["runs"].values() for name in found) == [
        f"{runs}/{name} (done at step 12)" for name in ("one", "three", "two")
    ]


def test_a_file_tells_its_version_and_whether_it_has_changed_since(main, written, capsys):
    path = written([A, B])
    source = used.Source(path, {}, used.NOT_READ)
    (facts,), _ = used.seen([source])
    assert (facts["saved"], facts["changed"]) == (None, None)
    assert list(used.told([facts])) == [f"{path}: version {versions.now(path)[:12]}, 2 rows"]
    main(["log", path, "--save", "first"])
    (facts,), _ = used.seen([source])
    assert facts["saved"]["note"] == "first"
    assert facts["saved"]["findings"]["errors"] == 0
    assert "(first), 2 rows" in next(used.told([facts]))
    written([A])
    (facts,), _ = used.seen([source])
    assert list(used.told([facts]))[1] == versions.changed(path)
    written([A, B])
    main(["log", path, "--save", "again"])  # nothing new
    written([B])
    main(["log", path, "--save", "one"])
    written([A, B])  # the version before the last
    (facts,), _ = used.seen([source])
    assert facts["saved"]["note"] == "first"
    assert facts["changed"]["note"] == "one"
    (facts,), table = used.seen([used.Source("world:company/train?size=5", {}, used.TRAINED)])
    assert (facts["rows"], facts["saved"], facts["changed"]) == (5, None, None)
    assert table.names == [used.TRAINED]
    capsys.readouterr()


def test_a_table_comes_back_as_it_was_written_and_takes_15_bytes_a_row(written, tmp_path):
    path = written(check_cases.MANY)
    _, table = used.seen([used.Source(path, {}, used.TRAINED)])
    (tmp_path / used.ROWS).write_bytes(table.dumped())
    again = used.load(tmp_path / used.ROWS)
    for mine, other in zip(table, again, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert (np.diff(table.hashes.astype(object)) >= 0).all()
    assert len(table.dumped()) < 15 * len(check_cases.MANY) + 2000


def test_a_folder_without_runs_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(errors.UserError, match=r"name (a folder of run folders|one that holds run folders)"):
            used.runs(folder)
