"""The review of a data file: every format can be edited and stays what it was; what was decided is a new version."""

import json
from pathlib import Path
import runpy
import sys

import pytest

from ftjax import errors
from ftjax.data import preferences, records, rows, versions
from ftjax.people import agreement, doors, review
from ftjax.people import store as people_store
from ftjax.people.kinds import review as kind

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "data.py"
LARGE = 12345678901234567890  # beyond what a browser's numbers hold

FORMS = {
    "messages": {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "id": LARGE},
    "sharegpt": {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "score": 0.1},
    "alpaca": {"instruction": "Q", "input": "", "output": "A"},
    "question": {"question": "Q", "answer": "A", "a/b~c": "other"},
    "completion": {"prompt": "Q", "completion": "A"},
    "text": {"text": "A"},
    "trl": {"prompt": "Q", "chosen": "A", "rejected": "B", "margin": 0.5},
    "openai-pairs": {
        "input": {"messages": [{"role": "user", "content": "Q"}]},
        "preferred_output": [{"role": "assistant", "content": "A"}],
        "non_preferred_output": [{"role": "assistant", "content": "B"}],
    },
    "ranked": {"prompt": "Q", "completions": ["A", "B"], "ranks": [1, 2]},
    "alpaca-pairs": {"instruction": "Q", "output": ["A", "B"]},
    "labelled": {"prompt": "Q", "completion": "A", "label": True},
}


def question(row):
    return people_store.Question("row", "review", {"of_preferences": preferences.recognises(row)})


def item(row, line=7):
    return people_store.Item("1", "row", {"line": line, "row": row}, "", 1)


def parts(row):
    return kind.shown(item(row), question(row), "Anna", None)["parts"]


def check(row, **answer):
    return kind.check(item(row), question(row), "Anna", answer)


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_changes_one_text_and_nothing_else(form):
    row = FORMS[form]
    before = json.dumps(row)
    at = next(part["at"] for part in parts(row) if part["text"] == "A")
    made = check(row, decision="edit", comment=" better ", texts={at: "A better one"})
    assert made["comment"] == "better"
    assert json.dumps(made["row"]) == before.replace('"A"', '"A better one"')
    assert json.dumps(row) == before
    take = preferences.from_row if preferences.recognises(row) else records.from_row
    take(made["row"], "here")


@pytest.mark.parametrize("form", FORMS)
def test_what_the_model_is_to_write_is_shown_as_that(form):
    shown = {part["text"]: part for part in parts(FORMS[form])}
    assert shown["A"]["kind"] == "answer"
    assert form == "text" or shown["Q"]["kind"] != "answer"
    if "B" in shown:
        assert (shown["A"]["side"], shown["B"]["side"]) in {("better", "worse"), ("1", "2")}


def test_the_row_as_json_keeps_numbers_that_a_browser_would_round():
    row = FORMS["messages"]
    text = kind.shown(item(row), question(row), "Anna", None)["json"]
    made = check(row, decision="edit", json=text.replace('"A"', '"A!"'))
    assert made["row"]["id"] == LARGE
    assert made["row"]["messages"][1]["content"] == "A!"


def test_a_row_that_training_refuses_can_be_edited_or_rejected_but_not_accepted():
    row = {"messages": [{"role": "user", "content": "Q"}]}
    with pytest.raises(errors.UserError, match=r"line 7 cannot be trained on as it is \(.*\); edit or reject it"):
        check(row, decision="accept")
    with pytest.raises(errors.UserError, match="as edited it cannot be trained on"):
        check(row, decision="edit", texts={"/messages/0/content": "Other"})
    mended = {"messages": [*row["messages"], {"role": "assistant", "content": "A"}]}
    assert check(row, decision="edit", json=json.dumps(mended))["row"] == mended
    assert check(row, decision="reject") == {"decision": "reject", "comment": ""}
    assert "refus" not in str(kind.shown(item(mended), question(mended), "Anna", None)["refusal"])


@pytest.mark.parametrize(
    "row", [["Hi", {"a": ["b"]}], {}, {"messages": None}, {"a": [[[["deep"]]]], "b": float("nan")}]
)
def test_whatever_stands_in_a_line_can_be_shown_and_rejected(row):
    shown = kind.shown(item(row), question({}), "Anna", None)
    assert shown["refusal"]
    assert kind.line(item(row)) is not None
    assert kind.check(item(row), question({}), "Anna", {"decision": "reject"})["decision"] == "reject"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [json.dumps({"prompt": f"Question {n}?", "completion": f"Answer {n}.", "id": n}) for n in range(1, 7)]
    path.write_text("\n".join([*lines[:3], "{broken", *lines[3:]]) + "\n")
    return str(path)


class Review:
    """A review that is under way."""

    def __init__(self, path, **more):
        self.data = rows.read(path)
        self.store = review.opened(self.data, **{"columns": None, "second_opinions": None, **more})
        for name in ("Anna", "Ben"):
            doors.join(self.store, name)

    def says(self, item, rater, decision, *, settles=False, **more):
        one = self.store.item(item)
        body = kind.check(one, self.store.questions()["row"], rater, {"decision": decision, **more})
        return self.store.answer(item, rater, body, counts=kind.counts(body), key=None, settles=settles)

    def decided(self):
        return review.decided(self.data, self.store)


@pytest.fixture
def begun(file):
    made = Review(file)
    yield made
    made.store.close()


@pytest.fixture
def run(monkeypatch, capsys):
    """Returns a function: words of data.py -> exit status, standard output, standard error."""

    def done(*words):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return done


def test_every_row_is_decided_by_those_who_answered(begun):
    begun.says("1", "Anna", "accept")
    begun.says("2", "Anna", "reject", comment="wrong")
    begun.says("3", "Anna", "edit", texts={"/completion": "Better."})
    begun.says("5", "Anna", "skip")
    begun.says("6", "Ben", "accept")
    begun.says("6", "Anna", "reject")
    begun.says("7", "Ben", "accept")
    begun.says("7", "Anna", "reject")
    begun.says("7", "Anna", "reject", settles=True)
    found = begun.decided()
    assert [(one.line, one.decision, one.by) for one in found] == [
        (1, "accept", ("Anna",)),
        (2, "reject", ("Anna",)),
        (3, "edit", ("Anna",)),
        (4, "unreadable", ()),
        (5, "open", ()),
        (6, "conflict", ()),
        (7, "reject", ("Anna",)),
    ]
    assert review.counts(found) == {"accept": 1, "edit": 1, "reject": 2, "open": 1, "conflict": 1, "unreadable": 1}
    parts = "1 accepted, 1 edited, 2 rejected, 1 open, 1 in conflict, 1 left out as unreadable"
    assert review.note(found) == f"reviewed: {parts}; by Anna (4)"
    with pytest.raises(errors.UserError, match="1 rows have no answer and 1 are in conflict; go on with the review"):
        review.kept(found, undecided=None)
    assert [one["id"] for one in review.kept(found, undecided="keep")] == [1, 3, 4, 5]
    assert [one["id"] for one in review.kept(found, undecided="drop")] == [1, 3]


def test_an_export_is_a_version_of_the_file_with_who_decided_what(begun, file, tmp_path, run):
    for item in ("1", "2", "3", "5", "6", "7"):
        begun.says(item, "Anna", "accept")
    begun.says("2", "Anna", "edit", texts={"/completion": "Better."}, comment="was wrong")
    begun.says("3", "Anna", "reject", comment="private")
    out = tmp_path / "reviewed.jsonl"
    status, said, _ = run("review", file, "--export", out, "--undecided", "drop")
    assert status == 0
    assert "5 rows" in said
    assert [(one.prompt, one.completion) for one in records.read(str(out))] == [
        ("Question 1?", "Answer 1."),
        ("Question 2?", "Better."),
        ("Question 4?", "Answer 4."),
        ("Question 5?", "Answer 5."),
        ("Question 6?", "Answer 6."),
    ]
    made = versions.history(str(out))[-1]
    assert made.note == "reviewed: 4 accepted, 1 edited, 1 rejected, 1 left out as unreadable; by Anna (6)"
    assert made.parents == (versions.Parent(file, versions.now(file)),)
    assert versions.changed(str(out)) is None
    told = [json.loads(line) for line in (tmp_path / "reviewed.decisions.jsonl").read_text().splitlines()]
    assert [(one["line"], one["written"], one["decision"]) for one in told][1:5] == [
        (2, 2, "edit"),
        (3, None, "reject"),
        (4, None, "unreadable"),
        (5, 3, "accept"),
    ]
    assert (told[2]["by"], told[2]["answers"][0]["comment"]) == (["Anna"], "private")
    status, _, said = run("review", file, "--export", out)
    assert status == 2
    assert "nothing of yours is written over" in said


def test_a_line_that_cannot_be_read_is_never_left_out_in_silence(begun, file, tmp_path, run):
    for item in ("1", "2", "3", "5", "6", "7"):
        begun.says(item, "Anna", "accept")
    out = tmp_path / "reviewed.jsonl"
    status, _, said = run("review", file, "--export", out)
    assert status == 2
    assert "1 lines hold no row that can be read, so they cannot be in the export: 4; give --undecided keep or" in said
    assert not out.exists()
    assert not out.with_suffix(".decisions.jsonl").exists()
    for undecided in ("keep", "drop"):
        out = tmp_path / f"{undecided}.jsonl"
        status, said, _ = run("review", file, "--export", out, "--undecided", undecided)
        assert status == 0
        assert "6 accepted, 1 left out as unreadable; by Anna (6)" in said
        assert f"left out: {file}:4: broken JSON at column 2" in said
        assert len(out.read_text().splitlines()) == 6
        decisions = out.with_suffix(".decisions.jsonl").read_text()
        assert [json.loads(line)["decision"] for line in decisions.splitlines()][3] == "unreadable"


def test_of_many_lines_that_cannot_be_read_the_first_are_named_and_the_others_counted(tmp_path, run):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Q", "completion": "A"}\n' + "{broken\n" * 12)
    made = Review(str(path))
    made.says("1", "Anna", "accept")
    page = review.campaign(made.data, made.store, findings=[], guidelines="")
    assert page.notes == ("12 lines cannot be read and are not shown: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more.",)
    made.store.close()
    status, said, _ = run("review", path, "--export", tmp_path / "out.jsonl", "--undecided", "drop")
    assert status == 0
    assert said.count(f"left out: {path}:") == 10
    assert f"left out: 2 lines more; {tmp_path / 'out.decisions.jsonl'} names them all" in said


def test_a_review_goes_on_where_it_was(begun, file):
    begun.says("1", "Anna", "accept")
    again = Review(file)
    assert [one.rater for one in again.store.standing("1")] == ["Anna"]
    assert len(again.store.items()) == 6
    again.store.close()


def test_a_file_that_changed_is_refused_by_name_with_the_way_out(begun, file, run):
    begun.says("1", "Anna", "accept")
    before = Path(file).read_text()
    Path(file).write_text(before + json.dumps({"prompt": "New?", "completion": "New."}) + "\n")
    with pytest.raises(
        errors.UserError, match=rf"{file} has changed since its review began .* bring it back .* or move"
    ):
        Review(file)
    status, _, said = run("review", file, "--export", Path(file).with_name("out.jsonl"))
    assert status == 2
    assert "has changed since its review began" in said
    assert not Path(file).with_name("out.jsonl").exists()
    Path(file).write_text(before.replace(": ", ":"))  # other spaces are the same rows
    again = Review(file)
    assert len(again.store.standing()) == 1
    again.store.close()


def test_second_opinions_can_be_asked_for_later(begun, file):
    assert {one.wanted for one in begun.store.items()} == {1}
    again = Review(file, second_opinions=1.0)
    assert {one.wanted for one in begun.store.items()} == {2}
    again.store.close()
    with pytest.raises(errors.UserError, match=r"--second-opinions 1.5 must be a share"):
        Review(file, second_opinions=1.5)


def test_what_check_printed_is_shown_with_its_rows(begun, file, tmp_path, run):
    status, said, _ = run("check", file, "--json")
    assert status == 1
    flags = tmp_path / "findings.json"
    flags.write_text(said)
    found = review.flags(str(flags), begun.data)
    page = review.campaign(begun.data, begun.store, findings=found, guidelines="Be kind.")
    of_lines = {one["line"] for one in found if one["line"] is not None}
    assert of_lines == {4}  # the broken one, which has no row to show
    assert page.flagged == ("4",)
    assert any("fewer_than_50" in note for note in page.notes)
    assert page.notes[0] == "1 lines cannot be read and are not shown: 4."
    for text, why in (
        ("{", "does not hold what data.py check --json prints"),
        ("[]", "does not hold"),
        ('{"findings": [], "rows": 3}', "is of 3 rows, but"),
        ('{"findings": [{"rule": "x"}], "rows": 7}', "does not hold"),
        (said.replace('"line": 4', '"line": NaN'), "does not hold"),
    ):
        flags.write_text(text)
        with pytest.raises(errors.UserError, match=why):
            review.flags(str(flags), begun.data)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["world:format/train"], "rows of the made world are in no file"),
        (["FILE", "--export", "OUT.csv"], "rows are written as JSON Lines"),
        (["FILE", "--export", "OUT.jsonl"], "has no review yet; data.py review"),
        (["FILE", "--undecided", "keep"], "says what --export does"),
        (["FILE", "--port", "99999"], "--port 99999: a port is a number from 0 to 65535; 0 takes a free one"),
        (["FILE", "--host", "0.0.0.0"], "others could read and answer; give --token as well, or --reviewers"),
        (["FILE", "--guidelines", "nowhere.txt", "--port", "0"], "nowhere.txt"),
        (["FILE", "--flags", "nowhere.json", "--port", "0"], "nowhere.json"),
    ],
)
def test_a_wrong_command_is_named(file, words, said, run):
    folder = Path(file).parent
    places = {"FILE": file, "OUT.csv": folder / "out.csv", "OUT.jsonl": folder / "out.jsonl"}
    status, _, err = run("review", *(places.get(word, word) for word in words))
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert list(folder.iterdir()) == [Path(file)]


def test_agreement_is_that_of_the_library_on_what_two_said():
    labels = {
        str(n): {"Anna": a, "Ben": b} for n, (a, b) in enumerate(["aa", "ar", "rr", "ee", "ae", "aa", "rr", "ra"])
    }
    labels["alone"] = {"Anna": "a"}
    found = agreement.of(labels, metric="nominal")
    assert (found["items"], found["same"]) == (8, 5 / 8)
    pair = found["pairs"][0]
    expected = (3 * 4 + 1 * 2 + 4 * 2) / 64  # Anna: 4 a, 1 e, 3 r; Ben: 3 a, 2 e, 3 r
    chance = (4 * 3 + 1 * 2 + 3 * 3) / 64
    assert expected != chance
    assert pair["kappa"] == pytest.approx((5 / 8 - chance) / (1 - chance))
    pooled = [7 / 16, 3 / 16, 6 / 16]
    by_fleiss = sum(share**2 for share in pooled)
    assert found["fleiss"] == pytest.approx((5 / 8 - by_fleiss) / (1 - by_fleiss))
    disagreement = 1 - (7 * 6 + 3 * 2 + 6 * 5) / (16 * 15)
    assert found["alpha"] == pytest.approx(1 - (3 / 8) / disagreement)


def test_agreement_where_it_does_not_exist_is_none_and_order_counts_for_ratings():
    alike = agreement.of({"1": {"Anna": "a", "Ben": "a"}}, metric="nominal")
    assert (alike["same"], alike["alpha"], alike["fleiss"], alike["pairs"][0]["kappa"]) == (1.0, None, None, None)
    assert agreement.of({"1": {"Anna": "a"}}, metric="nominal")["alpha"] is None
    near = {str(n): {"Anna": a, "Ben": b} for n, (a, b) in enumerate([(1, 2), (5, 4), (3, 3), (2, 1), (4, 5)])}
    assert agreement.of(near, metric="ordinal")["alpha"] > 0.5 > agreement.of(near, metric="nominal")["alpha"]
    uneven = {"1": {"Anna": 1, "Ben": 1, "Cleo": 2}, "2": {"Anna": 3, "Ben": 3}}
    assert agreement.of(uneven, metric="ordinal")["fleiss"] is None
