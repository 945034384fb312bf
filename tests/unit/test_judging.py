"""A config of a judge, and the script that runs it, up to what lies in the folder."""

import json
import runpy
import secrets

import pytest

from ftjax import config as configs
from ftjax import experiment, judging
from ftjax.errors import UserError
from tests import bases, judge_server

EVALUATE = runpy.run_path(f"{bases.ROOT}/scripts/evaluate.py")["main"]  # nothing imports a script
FILE = f"{bases.ROOT}/configs/eval/judge.py"
ROWS = [
    {
        "prompt": f"Question {n}?",
        "a": f"good {n}" if n % 3 else f"poor {n}",
        "b": f"plain {n}",
        "human": ["a", "a", "b"],
    }
    for n in range(30)
]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of pairs: 20 of 30 times a is good, else both are alike. Kept replies are in a folder of the test."""
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(experiment, "use_compilation_cache", lambda: None)  # the tests have their own
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def measure(x):
    rows = []
    return judging.measure(x, lambda _: None, rows.extend), rows


def config(argument, **changes):
    return configs.override(configs.load(f"{FILE}:{argument}"), {k.replace("__", "."): v for k, v in changes.items()})


def test_a_judge_on_loopback_needs_no_key_and_what_it_says_is_in_the_folder(file, tmp_path, capsys):
    plan = lambda number, attempt: ("429", "cut", "good")[attempt] if number % 20 == 0 else "good"
    with judge_server.serving(plan) as server:
        words = [f"--config.judge.url={server.url}", "--config.judge.model=m", f"--config.data.path={file}"]
        words += ["--config.judge.backoff=0.001", "--config.data.a=new", "--config.data.b=old"]
        words += ["--config.judge.prompt_price=2.0", "--config.judge.answer_price=10.0"]
        assert EVALUATE(["--config", FILE, *words, "--workdir", str(tmp_path / "out")]) == 0
        said = capsys.readouterr().out
        again = ["--config", FILE, *words, "--workdir", str(tmp_path / "again")]
        assert EVALUATE(again) == 0
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == 60
    found = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert (found["wins"], found["ties"], found["losses"]) == (20, 10, 0)
    assert found["win_rate"]["value"] == pytest.approx(25 / 30)
    assert found["human"]["agreement"]["value"] == pytest.approx(20 / 30 * 2 / 3)
    cost = {"requests": 60, "asked_now": 60, "sent_now": 66, "retries_now": 6, "estimated_now": 0}
    assert found["cost"] == cost | {"prompt_tokens": 6000, "answer_tokens": 600, "money": 0.018}
    assert found["verdict"].startswith("new wins 83.3% of 30 pairs against old")
    assert found["verdict"] in said
    assert "60 of 60 answered" in said
    assert said.count(" of 60 answered") == 10
    rows = [json.loads(line) for line in (tmp_path / "out" / "judgments.jsonl").read_text().splitlines()]
    assert [row["winner"] for row in rows] == ["a" if n % 3 else "tie" for n in range(30)]
    assert rows[1]["answers"] == ["So it is. [[A]]", "So it is. [[B]]"]
    second = json.loads((tmp_path / "again" / "judge.json").read_text())
    assert second["cost"] == cost | {
        "asked_now": 0,
        "sent_now": 0,
        "retries_now": 0,
        "prompt_tokens": 6000,
        "answer_tokens": 600,
        "money": 0.018,
    }
    assert {**second, "cost": 0} == {**found, "cost": 0}


def test_a_judging_that_stopped_goes_on_in_its_folder_with_a_larger_budget(file, tmp_path):
    with judge_server.serving() as server:
        words = [f"--config.judge.url={server.url}", "--config.judge.model=m", "--workdir", str(tmp_path / "out")]
        words = ["--config", f"{FILE}:data={file}", *words, "--config.judge.max_tokens=20"]
        with pytest.raises(UserError, match="budget is spent"):
            EVALUATE([*words, "--config.judge.budget_tokens=4000"])
        before = sum(server.answered.values())
        assert 0 < before <= 4000 // 110
        with pytest.raises(UserError, match=r"data.rows: 0 \(run\) against 4 \(now\)"):
            EVALUATE([*words, "--config.data.rows=4"])
        assert EVALUATE(words) == 0
        with pytest.raises(UserError, match="is not empty"):
            EVALUATE(words)
    assert set(server.answered.values()) == {1}
    assert json.loads((tmp_path / "out" / "judge.json").read_text())["cost"]["asked_now"] == 60 - before
    assert (tmp_path / "out" / "DONE").exists()


def test_what_a_judge_said_is_there_to_look_at_where_it_comes_to_nothing(file, tmp_path):
    with judge_server.serving(lambda *_: "nonsense") as server:
        words = [f"--config.judge.url={server.url}", "--config.judge.model=m", "--workdir", str(tmp_path / "out")]
        with pytest.raises(UserError, match=r"no verdict on any of 30 pairs; look at its answers in judgments.jsonl"):
            EVALUATE(["--config", f"{FILE}:data={file}", *words])
    rows = [json.loads(line) for line in (tmp_path / "out" / "judgments.jsonl").read_text().splitlines()]
    assert [row["answers"] for row in rows] == [["I like both."] * 2] * 30


def test_an_answer_that_no_file_can_hold_costs_no_other(file, tmp_path):
    odd = b'{"choices": [{"message": {"content": "hi \\ud800 [[A]]"}}]}'
    with judge_server.serving(lambda number, _: odd if number == 3 else "good") as server:
        words = [f"--config.judge.url={server.url}", "--config.judge.model=m", "--workdir", str(tmp_path / "out")]
        assert EVALUATE(["--config", f"{FILE}:data={file}", *words]) == 0
    said = (tmp_path / "out" / "judgments.jsonl").read_text(encoding="utf-8")
    assert said.count("hi \ufffd [[A]]") == 1
    assert len(said.splitlines()) == 30


def test_ratings_a_rubric_and_no_references(file, tmp_path):
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("Only goodness counts.")
    with judge_server.serving() as server:
        changes = {"judge__url": server.url, "judge__model": "m", "judge__mode": "single", "judge__rubric": str(rubric)}
        found, rows = measure(judging.build(config(f"data={file}", **changes)))
    assert (found["wins"], found["ties"], found["ratings"]["a"]) == (20, 10, pytest.approx((20 * 8 + 10 * 3.5) / 30))
    assert rows[0]["ratings"] == [3.5, 3.5]
    assert found["position"] is None


def test_the_stub_errs_as_it_is_told_and_the_same_every_time(tmp_path):
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps({"prompt": f"{n}", "a": f"a{n}", "b": f"b{n}"}) + "\n" for n in range(1500)))
    found = lambda **changes: measure(judging.build(config(f"data={many},stub", **changes)))[0]
    sure = found(stub__accuracy=1.0, stub__first=0.0, stub__nonsense=0.0)
    assert sure["position"]["consistent"] == 1
    assert sure["win_rate"]["low"] < 0.5 < sure["win_rate"]["high"]
    odd = found(stub__accuracy=1.0, stub__first=0.3, stub__nonsense=0.1)
    assert odd["unparsable_answers"] / odd["answers"] == pytest.approx(0.1, abs=0.02)
    assert odd["position"]["flip_rate"]["value"] == pytest.approx(0.3, abs=0.04)
    assert odd["position"]["first_preferred"]["value"] == pytest.approx(0.65, abs=0.03)
    assert odd == found(stub__accuracy=1.0, stub__first=0.3, stub__nonsense=0.1)
    assert odd["win_rate"] != found(stub__accuracy=1.0, stub__first=0.3, stub__nonsense=0.1, seed=1)["win_rate"]
    rated = found(judge__mode="single", stub__nonsense=0.0)
    assert 1 <= rated["ratings"]["a"] <= 10


def test_a_local_model_judges_and_is_asked_once(file, finished, monkeypatch):
    changes = {"judge__max_tokens": 4, "data__rows": 2, "judge__concurrency": 2}
    x = judging.build(config(f"data={file},local={finished.folder}", **changes))
    short = [[one._replace(messages=(("system", "Who?"), ("user", "Say red."))) for one in asked] for asked in x.asked]
    short[0][0] = short[0][0]._replace(messages=(("user", "Say [[A]]."),))
    monkeypatch.setattr(judging.judge, "read", lambda *_: judging.judge.Judged(("a", "a"), (), "a"))
    x = judging.dataclasses.replace(x, asked=short)
    found, rows = measure(x)
    assert found["cost"]["asked_now"] == 2  # the others are one request
    assert rows[0]["answers"][1] == rows[1]["answers"][0] == rows[1]["answers"][1]
    assert measure(x)[0]["cost"]["asked_now"] == 0


def test_a_prompt_that_the_local_judge_cannot_read_is_named(file, tiny_base):
    with pytest.raises(UserError, match="more than the 128 that the judge reads"):
        measure(judging.build(config(f"data={file},local={tiny_base}")))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"judge__url": "api.openai.com"}, "config.judge.url is 'api.openai.com'"),
        ({"judge__model": ""}, "config.judge.model is empty; name the model that judges"),
        ({"judge__budget_tokens": 0}, "budget_tokens is 0; it must be at least 1: a judge needs a budget"),
        ({"judge__budget_money": 1.0}, "budget_money is 1, but nothing has a price"),
        ({"judge__mode": "pairwse"}, "config.judge.mode is 'pairwse'.*pairwise"),
        ({"judge__url": "https://api.example.com/v1"}, "the variable NO_SUCH_KEY is not set; export it"),
        ({"data__path": ""}, "config.data.path is empty"),
        ({"judge__rubric": "/none/rubric.txt"}, "/none/rubric.txt: there is no folder"),
        ({"judge__kind": "local", "judge__model": ""}, "name a model folder or a run"),
        ({"judge__kind": "local", "judge__model": "no/such"}, "there is no model folder 'no/such'"),
    ],
)
def test_a_judge_without_what_it_needs_is_refused_before_anything_is_asked(file, changes, complaint):
    good = {"judge__url": "http://localhost:1/v1", "judge__model": "m", "judge__key": "NO_SUCH_KEY"}
    judging.build(config(f"data={file}", **good))
    with pytest.raises(UserError, match=complaint):
        judging.build(config(f"data={file}", **good | changes))


def test_the_key_is_in_no_file_and_no_message(file, tmp_path, monkeypatch):
    secret = secrets.token_hex(16)  # made here: the folder holds a patch of the checkout, this file in it
    monkeypatch.setenv("JUDGE_KEY", secret)
    with judge_server.serving() as server:
        words = [f"--config.judge.url={server.url}", "--config.judge.model=m", "--config.judge.key=JUDGE_KEY"]
        EVALUATE(["--config", f"{FILE}:data={file}", *words, "--workdir", str(tmp_path / "out")])
    assert set(server.keys) == {f"Bearer {secret}"}
    for path in [*(tmp_path / "out").rglob("*"), *(tmp_path / "cache").rglob("*")]:
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    built = judging.build(config(f"data={file}", judge__url="https://x/v1", judge__model="m", judge__key="JUDGE_KEY"))
    assert built.key == secret
    assert secret not in repr(built)


def test_every_default_of_a_judge_is_read(file, monkeypatch):
    asked = set()
    monkeypatch.setattr(experiment, "plain", lambda config: bases.Recorder(config.to_dict(), asked))
    with judge_server.serving() as server:
        made = config(f"data={file}", judge__url=server.url, judge__model="m", data__rows=2)
        measure(judging.build(made))
        measure(judging.build(configs.override(made, {"judge.kind": "stub"})))
    assert set(configs.flatten(made)) - asked == set()
