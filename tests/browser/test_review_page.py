"""The page of `data.py review` in a real browser: nothing is lost, hands can stay on the keys, data stays text."""

import json

import pytest

from ftjax.data import records, versions
from ftjax.people import store as people_store
from tests import bases, processes

pytestmark = pytest.mark.browser
SCRIPT = bases.ROOT / "scripts" / "data.py"
MARKUP = '<script>window.pwned = 1</script><img src="x" onerror="window.pwned = 2"><b>bold</b>'
LONG = "Donaudampfschifffahrtsgesellschaftskapitän" * 12


def chat(asked, answer):
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


class Reviewed:
    """A file under review, served."""

    def __init__(self, folder, served, rows, *words, findings=()):
        self.file = folder / "mine.jsonl"
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags = folder / "findings.json"
        flags.write_text(json.dumps({"rows": len(rows), "findings": list(findings), "summary": {}}))
        guidelines = folder / "guidelines.txt"
        guidelines.write_text(f"Answers are short.\n{MARKUP}")
        words = ("--flags", flags, "--guidelines", guidelines, *words)
        self.server = served(SCRIPT, "review", self.file, *words)

    def standing(self):
        """Returns what is in the file of answers: (item, rater, body)."""
        with people_store.Store(f"{self.file}.review.sqlite") as store:
            return [(one.item, one.rater, one.body) for one in store.standing()]

    def decisions(self):
        return [(item, rater, body["decision"]) for item, rater, body in self.standing()]

    def history(self):
        with people_store.Store(f"{self.file}.review.sqlite") as store:
            return store.history()


@pytest.fixture
def reviewed(tmp_path, served):
    """Returns a function: rows and words of the command -> a review of them, served."""
    return lambda rows, *words, **more: Reviewed(tmp_path, served, rows, *words, **more)


def enter(page, name):
    page.wait_for_selector("#name")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_selector("article.item")


def line(page, number=None):
    """Waits until a line is shown, and returns which."""
    if number is not None:
        page.wait_for_function("n => document.querySelector('article h2')?.textContent === `Line ${n}`", arg=number)
    return int(page.text_content("article h2").removeprefix("Line "))


def press(page, key):
    page.keyboard.press(key)


def far(page, text):
    page.wait_for_function("text => document.getElementById('far')?.textContent.startsWith(text)", arg=text)


def test_two_reviewers_at_once_share_the_rows_and_every_answer_is_kept(browser, reviewed):
    one = reviewed([chat(f"Question {n}?", f"Answer {n}.") for n in range(1, 9)])
    pages = {name: browser.window(one.server.address) for name in ("Anna", "Ben")}
    for name, page in pages.items():
        enter(page, name)
    seen = {name: [line(page)] for name, page in pages.items()}
    assert seen == {"Anna": [1], "Ben": [2]}
    for _ in range(3):
        for name, page in pages.items():  # both are at it: neither waits for the other
            before = seen[name][-1]
            press(page, "a")
            page.wait_for_function("n => document.querySelector('article h2')?.textContent !== `Line ${n}`", arg=before)
            seen[name].append(line(page))
    assert sorted(seen["Anna"] + seen["Ben"]) == list(range(1, 9))
    for page in pages.values():
        press(page, "r")
        page.wait_for_selector("text=Nothing is left for you")
    assert sorted(one.decisions()) == sorted(
        (str(n), name, "accept" if place < 3 else "reject") for name in seen for place, n in enumerate(seen[name])
    )


def test_a_reload_keeps_the_row_and_what_was_typed(browser, reviewed):
    one = reviewed([chat("Question?", "Answer."), chat("Other?", "Other.")])
    page = browser.window(one.server.address)
    enter(page, "Anna")
    press(page, "c")
    page.keyboard.type("half a comm")
    press(page, "Escape")
    press(page, "e")
    page.keyboard.press("Control+End")
    page.keyboard.type(" And more")
    page.reload()
    assert line(page, 1) == 1
    assert page.input_value("#comment") == "half a comm"
    assert page.input_value(".answer textarea") == "Answer. And more"
    press(page, "Control+Enter")
    line(page, 2)
    assert one.standing() == [
        ("1", "Anna", {"decision": "edit", "comment": "half a comm", "row": chat("Question?", "Answer. And more")})
    ]


def test_a_server_that_is_killed_in_the_middle_loses_nothing(browser, reviewed):
    one = reviewed([chat(f"Question {n}?", f"Answer {n}.") for n in range(1, 6)])
    page = browser.window(one.server.address)
    enter(page, "Anna")
    press(page, "a")
    line(page, 2)
    press(page, "e")
    page.keyboard.type(" Typed before the crash")
    one.server.kill()
    page.keyboard.type(", and after it")
    press(page, "Control+Enter")
    page.wait_for_selector("text=The server does not answer. What you wrote is kept here")
    assert one.decisions() == [("1", "Anna", "accept")]
    one.server.start()
    line(page, 3)
    assert page.is_hidden("#trouble")
    found = one.standing()
    assert [(item, body["decision"]) for item, _, body in found] == [("1", "accept"), ("2", "edit")]
    assert found[1][2]["row"]["messages"][1]["content"] == "Answer 2. Typed before the crash, and after it"
    assert len(one.history()) == 2
    for _ in range(3):  # killed right when an answer is sent: it is kept once, whether it was acknowledged or not
        before = line(page)
        press(page, "a")
        one.server.kill()
        one.server.start()
        page.wait_for_function(
            "n => document.querySelector('main h2')?.textContent !== `Line ${n}`", arg=before, timeout=40_000
        )
        if page.query_selector("text=Nothing is left for you"):
            break
    assert [item for item, _, _ in one.standing()] == ["1", "2", "3", "4", "5"]
    assert len(one.history()) == 5


def test_everything_can_be_done_with_the_keyboard_alone(browser, reviewed):
    rows = [chat(f"Question {n}?", f"Answer {n}.") for n in range(1, 7)]
    one = reviewed(rows, "--second-opinions", "1")
    page = browser.window(one.server.address)
    page.mouse.move(0, 0)
    enter(page, "Anna")
    for key, number in (("a", 2), ("r", 3), ("s", 4)):
        press(page, key)
        line(page, number)
    press(page, "c")
    page.keyboard.type("see the e-mail of a, r and s")  # letters in a field are letters
    press(page, "Escape")
    press(page, "e")
    page.keyboard.press("Control+A")
    page.keyboard.type("Better 4.")
    press(page, "Control+Enter")
    line(page, 5)
    press(page, "u")
    line(page, 4)
    assert page.input_value(".answer textarea") == "Better 4."
    assert page.input_value("#comment") == "see the e-mail of a, r and s"
    press(page, "Control+Enter")
    line(page, 5)
    press(page, "e")
    press(page, "Escape")
    press(page, "j")
    page.wait_for_selector("textarea.json")
    page.keyboard.press("Control+A")
    page.keyboard.type(json.dumps(chat("Question 5?", "Written as JSON.")))
    press(page, "Control+Enter")
    line(page, 6)
    press(page, "?")
    page.wait_for_selector("dialog[open]")
    assert "Accept" in page.text_content("dialog")
    press(page, "Escape")
    page.wait_for_selector("dialog", state="detached")
    assert page.is_visible("aside")
    press(page, "g")
    assert page.is_hidden("aside")
    press(page, "/")
    page.wait_for_selector("#sought:focus")
    page.keyboard.type("question 3")
    press(page, "Enter")
    page.wait_for_function("() => document.getElementById('count')?.textContent === '1 to 1 of 1'")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").startswith("3")
    press(page, "Enter")
    line(page, 3)
    press(page, "a")
    line(page, 6)
    press(page, "Alt+4")
    page.wait_for_selector("text=No item has two blind answers yet.")
    press(page, "n")
    line(page, 6)
    press(page, "a")
    page.wait_for_selector("text=Nothing is left for you")
    assert [(item, decision) for item, _, decision in sorted(one.decisions())] == [
        ("1", "accept"), ("2", "reject"), ("3", "accept"), ("4", "edit"), ("5", "edit"), ("6", "accept"),
    ]  # fmt: skip
    rows = {item: body["row"] for item, _, body in one.standing() if "row" in body}
    assert rows == {"4": chat("Question 4?", "Better 4."), "5": chat("Question 5?", "Written as JSON.")}


@pytest.mark.parametrize("width", [400, 1280])
def test_no_view_scrolls_sideways(browser, reviewed, width):
    findings = [{"rule": "near_duplicates", "severity": "warning", "line": 1, "message": LONG, "suggestion": LONG}]
    rows = [
        {**chat(f"Question {LONG}?", f"Answer\n\n    {LONG}"), LONG[:80]: LONG},
        chat("Short?", "Short."),
    ]
    one = reviewed(rows, "--second-opinions", "1", findings=findings)
    pages = {name: browser.window(one.server.address, width=width, height=800) for name in ("Anna", "B" * 60)}
    fits = lambda page: page.evaluate("document.documentElement.scrollWidth") <= width
    for name, page in pages.items():
        assert fits(page)
        enter(page, name)
        assert fits(page)
        if width < 1000:
            assert page.is_hidden("aside")
            press(page, "g")
            assert page.is_visible("aside")
        assert fits(page)
        press(page, "e")
        page.wait_for_selector(".part textarea")
        assert fits(page)
        press(page, "Escape")
        press(page, "j")
        page.wait_for_selector("textarea.json")
        assert fits(page)
        press(page, "Escape")
        press(page, "Escape")
        page.wait_for_selector(".part .text")
        press(page, "?")
        page.wait_for_selector("dialog[open]")
        assert fits(page)
        box = page.query_selector("dialog").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        press(page, "Escape")
        press(page, "a" if name == "Anna" else "r")
        line(page, 2)
    for view, wanted in (("Alt+2", ".lines"), ("Alt+3", ".lines"), ("Alt+4", "table")):
        press(page, view)
        page.wait_for_selector(wanted)
        assert fits(page), view
    press(page, "Alt+3")
    page.wait_for_selector(".lines button:focus")
    press(page, "Enter")
    page.wait_for_selector(".others")
    assert fits(page)


def test_script_in_the_data_stays_text_wherever_it_is_shown(browser, reviewed):
    findings = [
        {"rule": MARKUP, "severity": "warning", "line": at, "message": MARKUP, "suggestion": MARKUP} for at in (1, None)
    ]
    one = reviewed([{**chat(MARKUP, MARKUP), MARKUP: MARKUP}] * 2, "--second-opinions", "1", findings=findings)
    anna, ben = (browser.window(one.server.address) for _ in range(2))
    for page, name, decision in ((anna, MARKUP[:60], "r"), (ben, "Ben", "a")):
        enter(page, name)
        texts = page.eval_on_selector_all(".part .text", "all => all.map((one) => one.textContent)")
        assert texts == [MARKUP] * 3
        assert MARKUP in page.text_content(".findings")
        assert MARKUP in page.text_content("aside")
        press(page, "c")
        page.keyboard.type(MARKUP)
        press(page, "Escape")
        press(page, "e")
        page.wait_for_selector(".part textarea")
        press(page, "Escape")
        press(page, "Escape")
        press(page, decision)
        line(page, 2)
    for view in ("Alt+2", "Alt+4", "Alt+3"):
        press(ben, view)
        ben.wait_for_selector({"Alt+2": "#sought", "Alt+3": ".lines", "Alt+4": "table"}[view])
    press(ben, "Enter")
    ben.wait_for_selector(".others")
    assert MARKUP in ben.text_content(".others")
    for page in (anna, ben):
        assert page.evaluate("window.pwned") is None
        assert "bold" not in page.eval_on_selector_all("b", "all => all.map((one) => one.textContent)")
        assert page.query_selector("img") is None
        assert len(page.query_selector_all("script")) == 1


def test_undo_brings_the_last_answers_back_one_by_one(browser, reviewed):
    one = reviewed([chat(f"Question {n}?", f"Answer {n}.") for n in range(1, 5)])
    page = browser.window(one.server.address)
    enter(page, "Anna")
    for key, number in (("a", 2), ("r", 3), ("a", 4)):
        press(page, key)
        line(page, number)
    far(page, "3 of 4 answers; 3 by you")
    press(page, "u")
    line(page, 3)
    far(page, "2 of 4")
    press(page, "u")
    line(page, 2)
    far(page, "1 of 4")
    assert one.decisions() == [("1", "Anna", "accept")]
    press(page, "a")
    line(page, 3)
    assert sorted(one.decisions()) == [("1", "Anna", "accept"), ("2", "Anna", "accept")]
    assert len(one.history()) == 3 + 2 + 1


def test_search_and_filters_find_rows_and_an_answer_can_be_changed(browser, reviewed):
    findings = [{"rule": "white_space", "severity": "note", "line": 3, "message": "strip it", "suggestion": "Do."}]
    rows = [chat(f"Question {n}?", f"Answer {n}.") for n in range(1, 5)] + [chat("Größe?", "40 m")]
    one = reviewed(rows, findings=findings)
    page = browser.window(one.server.address)
    enter(page, "Anna")
    press(page, "a")
    line(page, 2)
    press(page, "/")
    page.wait_for_selector("#sought:focus")
    page.keyboard.type("GRÖSSE")
    press(page, "Enter")
    page.wait_for_function("() => document.getElementById('count')?.textContent === '1 to 1 of 1'")
    assert "40 m" in page.text_content(".lines")
    for chosen, wanted in (("flagged", "3"), ("mine", "1")):
        page.fill("#sought", "")
        page.select_option("select", chosen)
        page.wait_for_function("n => document.querySelector('.lines .number')?.textContent === n", arg=wanted)
    page.click(".lines button")
    line(page, 1)
    assert "You accepted this before" in page.text_content("article")
    press(page, "r")
    line(page, 2)
    assert one.decisions() == [("1", "Anna", "reject")]
    page.click("text=Rows")
    page.select_option("select", "flagged")
    page.wait_for_function("() => document.querySelector('.lines .number')?.textContent === '3'")
    page.click(".lines button")
    line(page, 3)
    assert "strip it" in page.text_content(".findings")


def test_a_conflict_is_listed_settled_and_exported_while_the_page_is_open(browser, reviewed, tmp_path):
    one = reviewed([chat(f"Question {n}?", f"Answer {n}.") for n in range(1, 4)], "--second-opinions", "1")
    anna, ben = (browser.window(one.server.address) for _ in range(2))
    enter(anna, "Anna")
    enter(ben, "Ben")
    assert line(anna) == line(ben) == 1
    for page, keys in ((anna, "aae"), (ben, "ara")):
        for key, number in zip(keys, (2, 3, None), strict=True):
            press(page, key)
            if key == "e":
                page.keyboard.press("Control+A")
                page.keyboard.type("Anna's words.")
                press(page, "Control+Enter")
            if number:
                line(page, number)
            assert "Anna" not in ben.text_content("main")  # blind
        page.wait_for_selector("text=Nothing is left for you")
    press(ben, "Alt+4")
    ben.wait_for_selector("table")
    assert ben.text_content("tbody td:nth-child(2)") == "3"
    assert ben.text_content("tbody td:nth-child(3)") == "33 %"
    press(ben, "Alt+3")
    ben.wait_for_selector("text=2 of 2 are open")
    press(ben, "Enter")
    ben.wait_for_selector(".others")
    line(ben, 2)
    press(ben, "1")
    ben.wait_for_selector("text=1 of 2 are open")
    ben.click(".lines button >> nth=1")
    ben.wait_for_selector("text=Anna's words.")
    press(ben, "e")
    ben.keyboard.press("Control+A")
    ben.keyboard.type("What both can live with.")
    press(ben, "Control+Enter")
    ben.wait_for_selector("text=0 of 2 are open")
    press(anna, "Alt+3")
    anna.wait_for_selector("text=settled by Ben")
    anna.click(".lines button >> nth=1")
    anna.wait_for_selector("text=Ben settled it:")
    assert anna.query_selector(".part textarea") is None  # her own edit is among the answers, not the start of another
    out = tmp_path / "out.jsonl"
    folder = tmp_path / "export"
    folder.mkdir()
    export = processes.Process([SCRIPT, "review", one.file, "--export", out], folder)
    assert export.ends(60) == 0, export.said()
    assert [record.messages[1].content for record in records.read(str(out))] == [
        "Answer 1.",
        "Answer 2.",
        "What both can live with.",
    ]
    assert versions.history(str(out))[-1].note == "reviewed: 2 accepted, 1 edited; by Anna (1), Ben (3)"
    told = [json.loads(text) for text in (tmp_path / "out.decisions.jsonl").read_text().splitlines()]
    assert [(one["decision"], one["by"]) for one in told] == [
        ("accept", ["Anna", "Ben"]),
        ("accept", ["Ben"]),
        ("edit", ["Ben"]),
    ]
    assert one.server.stop() == 0


def test_a_link_brings_its_reviewer_in_and_leaves_no_token_in_the_address(browser, reviewed):
    one = reviewed([chat("Question?", "Answer.")], "--reviewers", "Anna, Ben")
    assert len(one.server.addresses) == 2
    page = browser.window(one.server.addresses[1])
    page.wait_for_selector("article.item")
    assert "Ben" in page.text_content(".me")
    assert "#" not in page.url
    assert "token" not in page.url
    bare = one.server.address.partition("#")[0]
    other = browser.window(bare)
    other.wait_for_selector("#name")
    other.keyboard.type("Anna")
    other.keyboard.press("Enter")
    other.wait_for_selector("text=a token is needed here; open the link that you were given")
    wrong = browser.window(f"{bare}#token=guess")
    wrong.wait_for_selector("text=this token opens nothing")
    assert one.decisions() == []


def test_a_pair_of_preferences_is_shown_side_by_side_and_edited(browser, reviewed):
    row = {"prompt": "Say something kind.", "chosen": "You are kind.", "rejected": "Kind.", "margin": 0.25}
    one = reviewed([row, row])
    page = browser.window(one.server.address)
    enter(page, "Anna")
    better, worse = (page.query_selector(f".side.{side}").bounding_box() for side in ("better", "worse"))
    assert better["y"] == worse["y"]
    assert better["x"] + better["width"] <= worse["x"]
    press(page, "e")
    page.fill(".side.better textarea", "You are very kind.")
    press(page, "Control+Enter")
    line(page, 2)
    assert one.standing()[0][2]["row"] == {**row, "chosen": "You are very kind."}


def test_what_one_has_begun_is_not_shown_to_another_in_the_same_tab(browser, reviewed):
    one = reviewed([chat("Question?", "Answer.")], "--second-opinions", "1")
    page = browser.window(one.server.address)
    enter(page, "Anna")
    press(page, "c")
    page.keyboard.type("what Anna thinks")
    page.click("text=leave")
    enter(page, "Ben")
    assert page.input_value("#comment") == ""
    page.click("text=leave")
    enter(page, "anna")
    assert page.text_content(".me").startswith("Anna")
    assert page.input_value("#comment") == "what Anna thinks"


def test_an_answer_taken_back_in_another_tab_can_be_given_again(browser, reviewed):
    one = reviewed([chat("Question?", "Answer."), chat("Other?", "Other.")])
    first, second = (browser.window(one.server.address) for _ in range(2))
    enter(first, "Anna")
    press(first, "a")
    line(first, 2)
    enter(second, "Anna")
    press(second, "u")
    line(second, 1)
    press(first, "n")
    line(first, 1)
    press(first, "a")
    line(first, 2)
    assert one.decisions() == [("1", "Anna", "accept")]
    assert len(one.history()) == 3


def test_what_cannot_be_kept_is_said_and_stays_on_the_screen(browser, reviewed):
    one = reviewed([{"messages": [{"role": "user", "content": "Only a question?"}]}, chat("Other?", "Other.")])
    page = browser.window(one.server.address)
    enter(page, "Anna")
    assert "Training refuses this row" in page.text_content("article")
    press(page, "a")
    page.wait_for_function("() => document.getElementById('said').textContent.includes('edit or reject it')")
    press(page, "e")
    page.keyboard.type(" and more")
    press(page, "Control+Enter")
    page.wait_for_function(
        "() => document.getElementById('said').textContent.includes('as edited it cannot be trained on')"
    )
    assert page.input_value(".part textarea") == "Only a question? and more"
    assert one.decisions() == []
    press(page, "Escape")
    press(page, "Escape")
    press(page, "r")
    line(page, 2)
    assert one.decisions() == [("1", "Anna", "reject")]
    far(page, "1 of 2 answers")
