"""What the page of `data.py review` shows in a real browser: data as text, on any screen, lists, conflicts, links."""

import json

import pytest

from ftjax.data import records, versions
from tests import processes
from tests.review_pages import LONG, MARKUP, SCRIPT, chat, enter, line, press

pytestmark = pytest.mark.browser


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


def test_who_is_let_in_by_a_link_from_now_on_loses_nothing_that_was_begun(browser, reviewed):
    one = reviewed([chat("Question?", "Answer."), chat("Other?", "Other.")])
    anna, eve = (browser.window(one.server.address) for _ in range(2))
    for page, name in ((anna, "Anna"), (eve, "Eve")):
        enter(page, name)
        press(page, "c")
        page.keyboard.type(f"what {name} thinks")
        press(page, "Escape")
    one.server.stop()
    one.server.words += ("--reviewers", "Anna")
    one.server.start()
    for page in (anna, eve):
        press(page, "a")
        page.wait_for_selector("text=who are you? enter your name again, or open the link that you were given")
    assert one.decisions() == []
    anna.goto(one.server.address)  # the same tab
    assert line(anna, 1) == 1
    assert anna.input_value("#comment") == "what Anna thinks"
    press(anna, "a")
    anna.wait_for_selector("text=Nothing is left for you")  # the other row is Eve's for a quarter of an hour
    assert one.decisions() == [("1", "Anna", "accept")]


def test_a_row_that_holds_nan_is_edited_taken_back_and_shown_again(browser, reviewed):
    one = reviewed([{**chat("Question?", "Answer."), "loss": float("nan")}, chat("Other?", "Other.")])
    page = browser.window(one.server.address)
    enter(page, "Anna")
    press(page, "e")
    page.keyboard.type(" And more")
    press(page, "Control+Enter")
    line(page, 2)
    press(page, "u")
    line(page, 1)
    assert page.input_value(".answer textarea") == "Answer. And more"
    assert page.text_content(".fact") == "loss NaN"
    press(page, "Control+Enter")
    line(page, 2)
    page.reload()
    assert line(page, 2) == 2
    press(page, "Alt+2")
    page.click(".lines button >> nth=0")
    assert line(page, 1) == 1
    [(_, _, body)] = one.standing()
    assert json.dumps(body["row"]) == json.dumps({**chat("Question?", "Answer. And more"), "loss": float("nan")})


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
