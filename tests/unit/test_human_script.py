"""`scripts/human.py`: what is wrong with its words is named, and its files are those that other commands read."""

import runpy
import signal

import httpx
import pytest

from ftjax import errors
from ftjax.compare import votes as compared
from ftjax.data import pairs, preferences
from ftjax.people import rating, votes
from tests import bases, processes, rated


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
    (found,) = compared.report(compared.read(str(names["out"])), baseline="zebra-untouched", level=0.95)
    assert (found["a"], found["votes"], found["win_rate"]["value"]) == ("yak-tuned", 3, 1.0)
    assert (tmp_path / "report.md").read_text().startswith("# What people say of zebra-untouched, yak-tuned\n")


def test_two_raters_with_tokens_go_on_after_a_kill(tmp_path):
    files = rated.answers(tmp_path, 2)
    words = [bases.ROOT / "scripts" / "human.py", "rate", "--answers", *files.values(), "--ask", "preference"]
    words += ["--store", tmp_path / "kept.sqlite", "--raters", "Anna,Ben", "--port", "0"]
    tokens, seen = {}, {"Anna": [], "Ben": []}
    for life in range(2):
        folder = tmp_path / str(life)
        folder.mkdir()
        process = processes.Process(words, folder)
        assert process.until(lambda: "Ctrl-C stops" in process.said()[0]), process.said()  # noqa: B023
        links = dict(line.split(": ") for line in process.said()[0].splitlines()[:2])
        base = links["Anna"].partition("#")[0]
        tokens = tokens or {name: link.partition("#token=")[2] for name, link in links.items()}  # old links go on
        assert httpx.get(f"{base}api/next", headers={"authorization": "Bearer guess"}).status_code == 401
        assert httpx.post(f"{base}api/enter", json={"name": "Anna"}).status_code == 401
        for name, token in tokens.items():
            with httpx.Client(base_url=base, headers={"authorization": f"Bearer {token}"}) as client:
                item = client.get("api/next").json()["item"]
                seen[name].append(item["id"])
                given = {"item": item["id"], "answer": {"choice": "1"}, "key": f"{name} {life}"}
                assert client.post("api/answers", json=given).json()["progress"]["mine"] == life + 1
        if life == 0:
            process.kill()
        else:
            process.send(signal.SIGINT)
            assert process.ends(30) == 0, process.said()
    assert {name: len(set(ids)) for name, ids in seen.items()} == {"Anna": 2, "Ben": 2}
    with rating.existing(tmp_path / "kept.sqlite") as store:
        assert len(votes.votes(store)) == 4
