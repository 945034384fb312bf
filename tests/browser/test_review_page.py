"""The page of `data.py review` in a real browser: nothing is lost, and hands can stay on the keys."""

import json

import pytest

from tests.review_pages import chat, enter, far, line, press

pytestmark = pytest.mark.browser


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
