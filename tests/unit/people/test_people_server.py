"""The server of a page: who may come in, what is refused, what a rater is not told."""

import json
import re

import pytest

starlette_client = pytest.importorskip("starlette.testclient")

from ftjax.people import doors, server  # noqa: E402
from ftjax.people import store as people_store  # noqa: E402

SECRET = "the answer of the other one"


class Client:
    """A page of one rater."""

    def __init__(self, app, name="", token=""):
        self.http = starlette_client.TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=True)
        self.headers = {}
        if name or token:
            entered = self.http.post("/api/enter", json={"name": name, "token": token})
            assert entered.status_code == 200, entered.text
            self.headers = {"authorization": f"Bearer {entered.json()['token']}"}

    def get(self, path):
        return self.http.get(path, headers=self.headers)

    def post(self, path, **body):
        headers = {**self.headers, "content-type": "application/json"}
        return self.http.post(path, content=json.dumps(body).encode(), headers=headers)

    def says(self, item, decision, key="", **more):
        answer = {"decision": decision, **more}
        return self.post("/api/answers", item=item, answer=answer, key=key or f"{id(self)} {item} {decision}")


def row(n):
    return {"messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"{n}."}]}


def edited(text):
    """Returns the request that gives the row of item 1 a column of this JSON."""
    made = json.dumps({**row(1), "x": "here"}).replace('"here"', text)
    return json.dumps({"item": "1", "answer": {"decision": "edit", "json": made}, "key": "k"}).encode()


@pytest.fixture
def store(tmp_path):
    with people_store.Store(tmp_path / "answers.sqlite") as made:
        items = [
            people_store.Item(str(n), "row", {"line": n, "row": row(n)}, f"Question {n}?", 2 if n == 1 else 1)
            for n in range(1, 5)
        ]
        made.fill({}, [people_store.Question("row", "review", {"of_preferences": False})], items)
        yield made


@pytest.fixture
def app(store):
    return server.app(server.Campaign("Test", store), doors.Doors(everybody=True))


@pytest.fixture
def anna(app):
    return Client(app, "Anna")


@pytest.fixture
def ben(app):
    return Client(app, "Ben")


def test_without_a_token_nothing_is_told_but_the_page(app):
    nobody = Client(app)
    assert nobody.get("/").status_code == 200
    for path in ("campaign", "next", "items", "items/1", "agreement", "conflicts"):
        assert nobody.get(f"/api/{path}").status_code == 401, path
    for path in ("answers", "undo", "lease", "conflicts/open", "conflicts/settle"):
        assert nobody.post(f"/api/{path}", item="1").status_code == 401, path
    nobody.headers = {"authorization": "Bearer guess"}
    assert nobody.get("/api/next").json()["error"].startswith("who are you? enter your name again, or open the link")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::1", "a@localhost"]
)
def test_another_host_is_refused(app, host):
    found = Client(app).http.get("/", headers={"host": host})
    assert found.status_code == 403
    assert "open the address that the command printed" in found.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.3.4:80"])
def test_our_own_name_and_addresses_are_served(app, host):
    assert Client(app).http.get("/", headers={"host": host}).status_code == 200


def test_a_page_of_another_origin_cannot_write(anna):
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        found = anna.http.post("/api/undo", json={"key": "k"}, headers={**anna.headers, **headers})
        assert found.status_code == 403, headers
    own = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}
    assert anna.http.post("/api/undo", json={"key": "k"}, headers={**anna.headers, **own}).status_code == 200


def test_every_answer_has_the_headers_that_keep_scripts_of_others_out(anna):
    refused = anna.http.get("/", headers={"host": "evil.example"})
    for found in (anna.get("/"), anna.get("/api/next"), anna.get("/api/nothing"), anna.get("/app.js"), refused):
        assert {name: found.headers[name] for name in doors.HEADERS} == doors.HEADERS
    assert "unsafe" not in doors.HEADERS["content-security-policy"]


def test_the_page_holds_no_script_of_its_own_and_asks_nobody_else(anna):
    page = anna.get("/").text
    assert re.findall(r"<script\b[^>]*>", page) == ['<script type="module" src="app.js">']
    assert '<script type="module" src="app.js"></script>' in page
    for file in server.PAGES.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]+/", text), file.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|\son\w+=\"", text
        )
        assert anna.get(f"/{file.name}").status_code == 200


def test_files_outside_of_the_pages_are_not_served(anna):
    for path in ("/../server.py", "/..%2fserver.py", "/pages/app.js", "/server.py", "/answers.sqlite"):
        assert anna.get(path).status_code == 404


HALF = "half \ud800"
DEEP = json.loads("[" * 300 + "]" * 300)
VALUES = [HALF, None, True, -1, 10**30, 1.5, float("nan"), [], {}, DEEP, {HALF: HALF}, "1" * 2000]


@pytest.mark.parametrize("value", VALUES)
def test_whatever_a_request_holds_is_answered_in_words(anna, store, value):
    for path, fields in (
        ("enter", {"name": "Anna", "token": ""}),
        ("lease", {"item": "1"}),
        ("answers", {"item": "1", "answer": {}, "key": "k"}),
        ("undo", {"key": "k"}),
        ("conflicts/open", {"item": "1"}),
        ("conflicts/settle", {"item": "1", "answer": {}, "key": "k"}),
        ("conflicts/settle", {"item": "1", "take": 1, "key": "k"}),
    ):
        for name in fields:
            found = anna.post(f"/api/{path}", **{**fields, name: value})
            assert found.status_code in (400, 401), (path, name)
            assert found.json()["error"], (path, name)
    for name in ("decision", "comment", "texts", "json"):
        found = anna.says("1", **{"decision": "edit", name: value}, key=f"key of {name}")
        assert (found.status_code, bool(found.json().get("error"))) == (400, True), name
    assert store.history() == []


@pytest.mark.parametrize("after", ["9" * 23, "9" * 5000, "-1", "1.5", "²", "x", "", "%00"])
def test_a_place_in_a_list_that_is_none_is_refused(anna, after):
    found = anna.get(f"/api/items?after={after}")
    assert found.status_code == 400
    assert "is no place in a list; give a number from 0 to 999999999999999" in found.json()["error"]
    assert anna.get("/api/items?after=999999999999999").json()["lines"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[1]", "must be an object"),
        (b"{}", "'item' must be a text"),
        (b'{"item": 1}', "'item' must be a text"),
        (b'{"item": "99", "answer": {}, "key": "k"}', "there is no item '99'"),
        (b'{"item": "1", "answer": [], "key": "k"}', "'answer' must be an object"),
        (b'{"item": "1", "answer": {"decision": "accept"}}', "'key' must be a text"),
        (b'{"item": "1", "answer": {"decision": "maybe"}, "key": "k"}', "must be one of accept, edit, reject, skip"),
        (b'{"item": "1", "answer": {"decision": "accept", "rating": 5}, "key": "k"}', "an answer has no 'rating'"),
        (b'{"item": "1", "answer": {"decision": "accept", "comment": 5}, "key": "k"}', "a comment is a text"),
        (b'{"item": "1", "answer": {"decision": "edit"}, "key": "k"}', "either 'texts' or 'json'"),
        (b'{"item": "1", "answer": {"decision": "edit", "texts": {"/x": "y"}}, "key": "k"}', "no text at '/x'"),
        (b'{"item": "1", "answer": {"decision": "edit", "json": "{"}, "key": "k"}', "is no JSON"),
        (b'{"item": "1", "answer": {"decision": "edit", "json": "{}"}, "key": "k"}', "cannot be trained on"),
        (b'{"item": "1", "answer": {"decision": "edit", "texts": {}}, "key": "k"}', "nothing is changed"),
        (edited("[" * 501 + "]" * 501), "nested 502 deep; make that at most 500"),
        (edited("[" * 5000 + "]" * 5000), "is no JSON"),
    ],
)
def test_a_bad_request_is_named_and_keeps_nothing(anna, store, body, said):
    headers = {**anna.headers, "content-type": "application/json"}
    found = anna.http.post("/api/answers", content=body, headers=headers)
    assert found.status_code == 400
    assert said in found.json()["error"]
    assert store.history() == []


def test_a_request_that_is_too_large_or_of_another_type_is_refused_unread(anna):
    found = anna.http.post(
        "/api/answers", content=b" " * (doors.LARGEST + 1), headers={"content-type": "application/json"}
    )
    assert found.status_code == 413
    assert anna.http.post("/api/answers", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_what_is_acknowledged_is_in_the_file(anna, store):
    told = anna.says("1", "accept", comment=" fine \ud800")
    assert told.json()["progress"]["answers"] == 1
    with people_store.Store(store.path) as other:
        kept = other.standing("1")
    assert [(one.number, one.rater, one.body) for one in kept] == [
        (told.json()["number"], "Anna", {"decision": "accept", "comment": "fine \ud800"})
    ]


def test_a_key_of_another_submission_is_refused_and_the_same_one_acknowledged_again(anna, ben, store):
    first = anna.says("1", "accept", key="k")
    assert anna.says("1", "accept", key="k").json()["number"] == first.json()["number"]
    for refused in (
        anna.says("2", "accept", key="k"),
        anna.says("1", "reject", key="k"),
        anna.says("1", "accept", key="k", comment="but"),
        ben.says("1", "accept", key="k"),
        anna.post("/api/undo", key="k"),
    ):
        assert refused.status_code == 409
        assert "has the key of another one, so it is not kept; reload the page" in refused.json()["error"]
    assert [(one.item, one.rater) for one in store.history()] == [("1", "Anna")]
    ben.says("2", "reject", key="of Ben")
    assert anna.post("/api/undo", key="u").json()["item"]["id"] == "1"
    assert anna.post("/api/undo", key="u").json()["item"]["id"] == "1"
    for refused in (ben.post("/api/undo", key="u"), anna.says("1", "accept", key="u")):
        assert refused.status_code == 409
    assert len(store.history()) == 3


def test_a_row_that_holds_nan_is_shown_edited_and_taken_back_and_keeps_it(tmp_path):
    given = {**row(1), "loss": float("nan"), "least": float("-inf"), "id": 12345678901234567890, "whole": 1.0}
    with people_store.Store(tmp_path / "nan.sqlite") as store:
        items = [people_store.Item("1", "row", {"line": 1, "row": given}, "", 2)]
        store.fill({}, [people_store.Question("row", "review", {"of_preferences": False})], items)
        app = server.app(server.Campaign("Test", store), doors.Doors(everybody=True))
        anna, ben = Client(app, "Anna"), Client(app, "Ben")
        told = [anna.get("/api/next")]
        for rater in (anna, ben):
            told.append(rater.says("1", "edit", texts={"/messages/1/content": "One."}))
        assert anna.get("/api/conflicts").json()["total"] == 0  # NaN is NaN: both edits are one
        again = anna.says("1", "edit", texts={"/messages/1/content": "One."})  # under the same key
        assert again.json()["number"] == 1
        kept = store.standing("1")[0].body["row"]
        assert json.dumps(kept) == json.dumps(given).replace('"1."', '"One."')
        told += [again, anna.get("/api/items/1"), anna.get("/api/items")]
        told += [ben.says("1", "reject"), Client(app, "Cleo").post("/api/conflicts/open", item="1")]
        told += [anna.post("/api/undo", key="u")]
        told += [ben.post("/api/undo", key="u2"), ben.get("/api/items/1")]
        for one in told:
            json.loads(one.text, parse_constant=lambda name: pytest.fail(f"a browser reads no {name}"))
        assert "number" not in told[-1].json()["item"]["mine"]
        assert told[-1].json()["item"]["mine"] == {"decision": "edit", "comment": ""}
        assert "Infinity" in told[0].json()["item"]["shown"]["json"]  # as a text
        same = ben.says("1", "edit", texts={"/messages/1/content": "1."}, key="same")
        assert "nothing is changed" in same.json()["error"]
        for number in ("NaN", "-Infinity", "1e999"):
            text = json.dumps({**row(1), "loss": 0.5}).replace("0.5", number)
            refused = ben.says("1", "edit", json=text, key=number)
            assert refused.status_code == 400
            assert f"({number} is no number that it knows; write null or a number" in refused.json()["error"]


def test_a_file_that_another_process_holds_is_said_and_tried_again(anna, store):
    with store.reading() as connection:
        connection.execute("PRAGMA busy_timeout = 50")
    with people_store.Store(store.path) as other, other.writing():
        found = anna.says("1", "accept")
    assert found.status_code == 503
    assert "try again" in found.json()["error"]
    assert anna.says("1", "accept").status_code == 200


def test_a_second_opinion_is_blind(anna, ben, store):
    assert anna.get("/api/next").json()["item"]["id"] == "1"
    anna.says("1", "reject", comment=SECRET)
    assert ben.get("/api/next").json()["item"]["id"] == "1"
    for path in ("next", "items", "items/1", "campaign", "agreement", "conflicts", "items?text=other"):
        assert SECRET not in ben.get(f"/api/{path}").text, path
        assert "reject" not in ben.get(f"/api/{path}").text, path
    refused = ben.post("/api/conflicts/open", item="1")
    assert refused.status_code == 400
    assert "no conflict" in refused.json()["error"]
    assert store.standing("1")[0].rater == "Anna"


def test_a_conflict_is_opened_settled_and_undone(anna, ben, store):
    anna.says("1", "reject", comment=SECRET)
    assert anna.get("/api/conflicts").json()["total"] == 0
    ben.says("1", "edit", texts={"/messages/1/content": "One."})
    assert anna.get("/api/conflicts").json()["open"] == 1
    cleo = Client(anna.http.app, "Cleo")
    opened = cleo.post("/api/conflicts/open", item="1").json()
    assert [(one["rater"], one["answer"]["decision"]) for one in opened["answers"]] == [
        ("Anna", "reject"),
        ("Ben", "edit"),
    ]
    assert opened["answers"][1]["shown"]["edited"]["parts"][1]["text"] == "One."
    late = cleo.says("1", "accept")
    assert "settle it under Conflicts" in late.json()["error"]
    skipped = cleo.post("/api/conflicts/settle", item="1", answer={"decision": "skip"}, key="s")
    assert "settled by a decision" in skipped.json()["error"]
    taken = cleo.post("/api/conflicts/settle", item="1", take=opened["answers"][1]["number"], key="t")
    assert taken.status_code == 200
    assert cleo.get("/api/conflicts").json()["lines"][0]["settled"] == "Cleo"
    assert store.standing("1")[-1].body["row"]["messages"][1]["content"] == "One."
    assert cleo.post("/api/undo", key="u").json()["settled"] is True
    assert cleo.get("/api/conflicts").json()["open"] == 1


def test_undo_gives_the_item_back_with_what_was_said(anna):
    anna.says("1", "edit", comment="shorter", texts={"/messages/1/content": "One!"})
    told = anna.post("/api/undo", key="u").json()
    assert told["undone"]["comment"] == "shorter"
    assert told["item"]["shown"]["edited"]["parts"][1]["text"] == "One!"
    assert told["item"]["mine"] is None
    assert anna.get("/api/next").json()["item"]["id"] == "1"
    assert anna.post("/api/undo", key="u2").json()["item"] is None


def test_agreement_and_conflicts_leave_out_who_skipped_and_who_settled(anna, ben):
    for item in ("1", "2", "3"):
        anna.says(item, "accept")
        ben.says(item, "accept" if item == "1" else "reject" if item == "2" else "skip")
    told = anna.get("/api/agreement").json()["agreement"][0]
    assert (told["items"], told["same"], told["pairs"][0]["raters"]) == (2, 0.5, ["Anna", "Ben"])
    assert json.dumps(told)  # no NaN
    assert [one["id"] for one in anna.get("/api/conflicts").json()["lines"]] == ["2"]
    assert anna.post("/api/conflicts/settle", item="2", answer={"decision": "accept"}, key="s").status_code == 200
    assert anna.get("/api/agreement").json()["agreement"][0] == told


def test_a_link_brings_its_rater_and_no_other_token_does(store):
    doors.link(store, "Dora", "her token")
    closed = server.app(server.Campaign("Test", store), doors.Doors(everybody=False, linked=frozenset({"Dora"})))
    dora = Client(closed, token="her token")
    assert dora.get("/api/campaign").json()["me"] == "Dora"
    for given in ({"name": "Dora"}, {"name": "Dora", "token": "guess"}, {"token": "guess"}, {}):
        assert Client(closed).post("/api/enter", **given).status_code == 401, given


def test_a_token_of_all_needs_a_name_beside_it(store):
    shared = server.app(server.Campaign("Test", store), doors.Doors(everybody=False, shared="open sesame"))
    assert Client(shared, "Eve", "open sesame").get("/api/campaign").json()["me"] == "Eve"
    assert Client(shared).post("/api/enter", token="open sesame").status_code == 400
    assert Client(shared).post("/api/enter", name="Eve", token="open").status_code == 401


def test_findings_are_told_with_their_item_and_found_by_a_filter(store):
    one = server.Campaign("Test", store, details=lambda item: {"findings": [item.id]}, flagged=("3",))
    anna = Client(server.app(one, doors.Doors(everybody=True)), "Anna")
    assert anna.get("/api/items/3").json()["item"]["details"] == {"findings": ["3"]}
    assert [line["id"] for line in anna.get("/api/items?only=flagged").json()["lines"]] == ["3"]
    assert "is none of all" in anna.get("/api/items?only=nothing").json()["error"]
