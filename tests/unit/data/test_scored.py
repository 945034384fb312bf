"""What check, its page and split make of scores that lie beside a file: only of scores of just these rows."""

import json
from pathlib import Path
import re

import numpy as np
import pytest

from ftjax.data import check, page, rows, scored, scores, split, topics, versions
from tests import check_cases

COUNT = len(check_cases.MANY)
TOPIC = np.arange(COUNT) % 3  # of the embeddings; words say another thing


def beside(path, values, embedding, why=None):
    """Writes scores of a file beside it."""
    found, _ = scores.blank(len(embedding), 1)
    why = why or [None] * len(embedding)
    manifest = {
        "format": scores.FORMAT, "file": path, "rows": len(embedding), "rows_hash": versions.now(path),
        "model": "models/<tiny>", "metric": "tasks.exact_match", "samples": 0,
    }  # fmt: skip
    where = [f"{path}:{n + 1}" for n in range(len(embedding))]
    made = scores.Scores(manifest, where, why, found | values, embedding.astype(np.float16))
    scores.write(scores.place(path), made)


def embeddings(labels):
    """Three clouds that lie far apart."""
    draw = np.random.default_rng(0)
    return 5 * np.eye(3)[labels] @ draw.normal(size=(3, 8)) + 0.05 * draw.normal(size=(len(labels), 8))


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(check_cases.lines(check_cases.MANY))
    nll = np.linspace(0.5, 3.5, COUNT)[np.random.default_rng(1).permutation(COUNT)]
    handled = (np.arange(COUNT) < 12).astype(float)
    beside(str(path), {"nll_per_token": nll, "nll": nll * 7, "tokens": np.full(COUNT, 7.0), "handled": handled},
           embeddings(TOPIC))  # fmt: skip
    return str(path), nll


def checked(path):
    none = {"model": None, "template_name": None, "max_length": None, "against": (), "columns": None}
    data = check.load(path, **none, progress=lambda: None, counted=lambda *_: None)
    return data, check.run(data, progress=lambda _: None)


def guide(report):
    return {line["rule"]: (line["kept"], line["found"]) for line in report.summary["guide"]}


def test_topics_are_those_of_the_embeddings_and_named_by_words(written):
    path, _ = written
    data, report = checked(path)
    assert data.topics.by_model
    assert {len({*TOPIC[data.topics.cluster == n]}) for n in range(len(data.topics.names))} == {1}
    assert report.summary["clusters_by"] == "embeddings of the model"
    assert all(data.topics.names)
    assert not rows.read(path).topics.by_model


def test_the_page_shows_the_hardest_and_easiest_rows_and_all_nlls(written):
    path, nll = written
    data, report = checked(path)
    text = page.render(data, report).partition("<h2>Scores</h2>")[2].partition("<h2>")[0]
    order = np.argsort(-nll)
    told = [(int(line), float(value)) for line, value in re.findall(r"line (\d+), ([\d.]+) nats a token", text)]
    expected = [*order[:3], *order[: -3 - 1 : -1]]
    assert told == [(n + 1, pytest.approx(nll[n], abs=1e-3)) for n in expected]
    assert text.index("the hardest") < text.index("the easiest")
    assert sum(map(int, re.findall(r": (\d+) rows</title>", text))) == COUNT
    assert "models/&lt;tiny&gt;" in text
    assert "12 of 60 rows the base already answers" in text
    assert "scores     by models/<tiny>: 12 of 60" in report.as_text(every=False)


def test_scores_of_other_rows_are_not_used_and_that_is_said(written):
    path, _ = written
    with open(path, "ab") as stream:
        stream.write(check_cases.lines([check_cases.chat("When does it rain?", "In May.")]))
    data, report = checked(path)
    assert data.scores is None
    assert data.vectors is None
    assert not data.topics.by_model
    assert "has changed since it was scored" in report.summary["scores"]["not_used"]
    assert "<p>Not used: " in page.render(data, report)
    scores.place(path).write_bytes(b"PAR1 but not really")
    assert "no scores of data.py score" in checked(path)[1].summary["scores"]["not_used"]


def test_rows_without_scores_have_no_place_on_the_map_and_no_nll(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(check_cases.lines([{"text": ""}, *check_cases.MANY]))
    embedding = np.concatenate([np.full((2, 8), np.nan), embeddings(TOPIC[1:])])
    nll = np.concatenate([[np.nan, np.nan], np.linspace(1, 2, COUNT - 1)])
    why = ["refused", "longer than the context", *[None] * (COUNT - 1)]
    beside(str(path), {"nll_per_token": nll, "nll": nll, "tokens": np.full(COUNT + 1, 1.0)}, embedding, why)
    data, report = checked(str(path))
    assert data.topics.looked_at.tolist() == list(range(1, COUNT))
    assert {len({*TOPIC[data.topics.looked_at][data.topics.cluster == n]}) for n in range(3)} == {1}
    text = page.render(data, report)
    assert f"line {COUNT + 1}, 2.000 nats a token" in text
    assert "line 3, 1.000 nats a token" in text
    assert "line 2, " not in text.partition("<h2>Scores</h2>")[2].partition("<h2>")[0]


def test_split_keeps_clusters_of_the_embeddings_together_and_without_scores_those_of_words(written):
    path, _ = written
    data = rows.read(path)
    scored.attach(data)
    place = {json.dumps(row): n for n, row in enumerate(check_cases.MANY)}
    parts = split.split(data, {"a": 2, "b": 1}, seed=0, by=None, clusters=3)
    sides = [{*TOPIC[[place[json.dumps(row)] for row in values]]} for values in parts.values.values()]
    assert sorted(map(len, sides)) == [1, 2]
    assert not sides[0] & sides[1]
    plain = rows.read(path)
    parts = split.split(plain, {"a": 1, "b": 1}, seed=0, by=None, clusters=4)
    own = topics.clusters(plain.asked, None, count=4)
    sides = [{*own[[place[json.dumps(row)] for row in values]]} for values in parts.values.values()]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 4


def test_near_duplicates_of_two_clusters_stay_together_without_joining_the_clusters(written):
    path, _ = written
    with open(path, "wb") as stream:
        twins = [check_cases.chat(row["messages"][0]["content"], row["messages"][1]["content"])
                 for row in check_cases.MANY[:6]]  # fmt: skip
        stream.write(check_cases.lines([*check_cases.MANY, *twins]))
    beside(path, {}, embeddings([*TOPIC, *((TOPIC[:6] + 1) % 3)]))  # each twin lies in another cluster
    data = rows.read(path)
    scored.attach(data)
    parts = split.split(data, {"a": 1, "b": 1, "c": 1}, seed=0, by=None, clusters=3)
    assert parts.groups == 3
    texts = [{json.dumps(row) for row in values} for values in parts.values.values()]
    assert sum(map(len, texts)) == COUNT


@pytest.mark.parametrize(("count", "says"), [(1, "at least 2"), (3, "no clusters: fewer than 20")])
def test_clusters_that_cannot_be_are_refused(count, says, tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_bytes(check_cases.lines(check_cases.MANY[:9]))
    with pytest.raises(ValueError, match=says):
        split.split(rows.read(str(path)), {"a": 1, "b": 1}, seed=0, by=None, clusters=count)


def test_the_guide_says_of_each_rule_whether_it_is_kept(written, tmp_path):
    path, _ = written
    data, report = checked(path)
    told = guide(report)
    assert told["at least 50 to 100 good examples"] == (True, "60 rows can be trained on")
    assert told["better 500 to 5,000"] == (False, "60 rows can be trained on")
    assert told["not what the model does already"] == (False, "12 of 60 rows are answered right before")
    assert told["each row once"][0]
    assert told["versioned"] == (False, "check --save NOTE keeps a version")
    text = page.render(data, report)
    assert "<td class='bad'>no</td><td>versioned</td>" in text
    made = versions.of_rows(check_cases.MANY, kind="answers", command="", parents=[], note="", findings=None)
    versions.save(path, made)
    assert guide(checked(path)[1])["versioned"][0]
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(check_cases.lines([*check_cases.MANY[:30], {"text": ""}, check_cases.MANY[0]]))
    told = guide(checked(str(bad))[1])
    assert told["no row that training stops at"][0] is False
    assert told["each row once"][0] is False
    assert told["not what the model does already"] == (None, "data.py score asks a model")
    with open(path, "ab") as stream:
        stream.write(b"\n")  # the same rows
    assert guide(checked(path)[1])["versioned"][0]


def test_the_guide_knows_who_reviewed_the_rows_and_that_rows_were_added_since(written):
    path, _ = written
    assert guide(checked(path)[1])["every example reviewed"] == (None, "data.py review asks people")
    lines = [
        {"line": n + 1, "written": n + 1, "decision": "accept", "by": ["Ada"], "answers": []} for n in range(COUNT)
    ]
    lines[3] |= {"decision": "edit", "by": ["Ben"]}
    lines.append({"line": COUNT + 1, "written": None, "decision": "reject", "by": ["Cid"], "answers": []})
    place = Path(path).with_suffix(".decisions.jsonl")
    told = lambda: place.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    told()
    assert guide(checked(path)[1])["every example reviewed"] == (True, "60 of 60 rows, by Ada, Ben")
    lines[0] |= {"decision": "open", "by": []}
    told()
    assert guide(checked(path)[1])["every example reviewed"] == (False, "59 of 60 rows, by Ada, Ben")
    with open(path, "ab") as stream:
        stream.write(check_cases.lines([check_cases.chat("When does it rain?", "In May.")]))
    assert guide(checked(path)[1])["every example reviewed"][0] is False
    place.write_text("{}\n")
    assert "cannot be read" in guide(checked(path)[1])["every example reviewed"][1]
