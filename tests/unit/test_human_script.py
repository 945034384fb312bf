"""`scripts/human.py`: what is wrong with its words is named, and its files are those that other commands read."""

import runpy

import pytest

from ftjax import errors
from ftjax.data import pairs, preferences
from tests import bases, rated


@pytest.fixture(scope="module")
def human():
    return runpy.run_path(str(bases.ROOT / "scripts" / "human.py"))["main"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rate", r"give --runs RUN ... with --prompts FILE, or --answers FILE ..."),
        ("rate --runs base runs/a --answers a.jsonl", "give --runs RUN"),
        ("rate --runs base runs/a", "--runs needs --prompts FILE"),
        ("rate --answers a.jsonl --prompts p.jsonl", "--prompts goes with --runs"),
        ("rate --answers a.jsonl --host 0.0.0.0", r"--host 0.0.0.0: others could read and answer; give --raters"),
        ("rate --answers {here}/none.jsonl --port 0", r"none.jsonl: no such file"),
        ("rate --answers {here}/a.jsonl --ask liking", "invalid choice: 'liking'"),
        ("rate --runs {here}/none --prompts {here}/a.jsonl --port 0", "none"),
        ("rate --answers {here}/a.jsonl --raters {long} --port 0 --ask rating", "a name has 1 to 60"),
        ("status {here}/a.jsonl", "a.jsonl: cannot be used as a file of answers"),
        ("status {here}/none.sqlite", r"none.sqlite: no such file"),
        ("export {here}/a.jsonl", "name a file to write: --out, --preferences, --pairs, --ratings, --report"),
    ],
)
def test_what_is_wrong_is_named(human, tmp_path, words, said):
    (tmp_path / "a.jsonl").write_text('{"prompt": "A?", "answer": "B."}\n')
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(errors.UserError, match=said):
        human([word.format(here=tmp_path, long="N" * 61) for word in words.split()])
    assert (tmp_path / "a.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_status_and_export_tell_what_raters_said(human, tmp_path, capsys):
    with rated.opened(tmp_path, count=3, ratings=1) as store:
        rated.join(store, "Anna")
        for item in store.items():
            if item.question == "preference":
                rated.choose(store, item, "Anna", "Blue")
            else:
                rated.answer(store, item, "Anna", rated.scores(4))
    place = str(tmp_path / "store.sqlite")
    assert human(["status", place]) == 0
    assert "| zebra-untouched | yak-tuned | 0 | 3 | 0 | 0 | 100.0%" in capsys.readouterr().out
    names = {name: tmp_path / f"{name}.jsonl" for name in ("out", "preferences", "pairs", "ratings")}
    words = [text for name, path in names.items() for text in (f"--{name}", str(path))]
    assert human(["export", place, *words, "--report", str(tmp_path / "report.md")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{names['out']}: 3 rows (votes)"
    assert len(preferences.read(str(names["preferences"]))) == len(pairs.read(names["pairs"])) == 3
    assert len(names["ratings"].read_text().splitlines()) == 6
    assert (tmp_path / "report.md").read_text().startswith("# What people say of zebra-untouched, yak-tuned\n")
