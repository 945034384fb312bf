"""`data.py review` as a command: what it holds when it is killed, ended or started again by other doors."""

import json
import re
import shutil
import signal

import httpx
import pytest

from ftjax.people import store as people_store
from tests import bases, processes

pytest.importorskip("starlette")

SCRIPT = bases.ROOT / "scripts" / "data.py"
LIVES = (((), signal.SIGKILL), ((), signal.SIGINT), (("--reviewers", "Ben"), signal.SIGTERM), ((), signal.SIGHUP))


def answered(client, token, item):
    """Returns the status of an answer, and of a question."""
    client.headers["authorization"] = f"Bearer {token}"
    sent = {"item": item, "answer": {"decision": "accept"}, "key": f"{token} {item}"}
    return client.post("api/answers", json=sent).status_code, client.get("api/campaign").status_code


def test_a_served_review_outlives_a_kill_is_closed_when_it_is_ended_and_shuts_out_who_is_not_named(tmp_path):
    file, flags = tmp_path / "mine.jsonl", tmp_path / "findings.json"
    file.write_text("".join(json.dumps({"prompt": f"Q {n}", "completion": f"A {n}"}) + "\n" for n in range(1, 5)))
    flags.write_text('{"rows": 4, "findings": []}')
    answers = tmp_path / "mine.jsonl.review.sqlite"
    tokens, said, kept = {}, [], []
    for life, (words, number) in enumerate(LIVES):
        folder = tmp_path / str(life)
        folder.mkdir()
        process = processes.Process([SCRIPT, "review", file, "--flags", flags, "--port", "0", *words], folder)
        assert process.until(lambda: "Ctrl-C stops" in process.said()[0]), process.said()  # noqa: B023
        address, link = re.search(r"(http://\S+/)(?:#token=(\S+))?", process.said()[0]).groups()
        with httpx.Client(base_url=address) as client:
            if life == 0:
                tokens["Eve"] = client.post("api/enter", json={"name": "Eve"}).json()["token"]
            if link:
                tokens["Ben"] = client.post("api/enter", json={"token": link}).json()["token"]
            said.append({name: answered(client, token, str(life + 1)) for name, token in tokens.items()})
        if number == signal.SIGKILL:
            process.kill()
            assert answers.with_name(answers.name + "-wal").stat().st_size > 0  # and belongs to it
            continue
        process.send(number)
        assert (process.ends(30), process.said()[1]) == (0, "")
        assert [path.name for path in tmp_path.glob("mine.jsonl.*")] == [answers.name]
        shutil.copy(answers, tmp_path / "copy.sqlite")
        with people_store.Store(tmp_path / "copy.sqlite") as copied:
            kept.append([(one.rater, one.item) for one in copied.history()])
    # Eve goes on after the crash without another entry, and is shut out where Ben alone is named.
    done, out = (200, 200), (401, 401)
    assert said == [{"Eve": done}, {"Eve": done}, {"Eve": out, "Ben": done}, {"Eve": done, "Ben": done}]
    everything = [("Eve", "1"), ("Eve", "2"), ("Ben", "3"), ("Eve", "4"), ("Ben", "4")]
    assert kept == [everything[:2], everything[:3], everything]
