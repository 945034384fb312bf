"""A judging that is killed in the middle goes on, and nothing that was answered is asked again."""

import contextlib
import json
import sqlite3

import pytest

from tests import judge_server

pytestmark = pytest.mark.e2e


def kept(file):
    """Returns how many replies are on the disk."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db,
    ):
        return db.execute("SELECT count(*) FROM replies").fetchone()[0]
    return 0


def test_kill_9_loses_no_answer_and_asks_none_twice(start, tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n}?", "a": f"good {n}", "b": f"plain {n}"} for n in range(25)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with judge_server.serving(lambda number, _: "good" if number < 17 else "hold") as server:
        words = ["--config", f"configs/eval/judge.py:data={file}", "--workdir", tmp_path / "out"]
        words += [f"--config.judge.url={server.url}", "--config.judge.model=m"]
        cache = {"FTJAX_CACHE": str(tmp_path / "cache")}
        first = start("evaluate", *words, **cache)
        assert first.until(lambda: kept(tmp_path / "cache" / "judge.sqlite") == 17)
        first.kill()
        server.plan = lambda *_: "good"
        assert not (tmp_path / "out" / "judge.json").exists()
        second = start("evaluate", *words, **cache)
        assert second.ends() == 0, second.said()
    assert len(server.answered) == 50
    assert set(server.answered.values()) == {1}
    found = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert (found["wins"], found["cost"]["asked_now"]) == (25, 50 - 17)
