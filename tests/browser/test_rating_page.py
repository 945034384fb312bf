"""The page of `human.py rate` in a real browser: blind, by keyboard alone, for two at once, and nothing is lost."""

import json

import pytest

from ftjax.people import store as people_store
from ftjax.people import votes
from tests import bases, rated, review_pages

pytestmark = pytest.mark.browser
SCRIPT = bases.ROOT / "scripts" / "human.py"


class Rated:
    """An evaluation of two systems, served."""

    def __init__(self, folder, served, *words, count=2):
        self.store, files = folder / "store.sqlite", rated.answers(folder, count)
        self.server = served(SCRIPT, "rate", "--answers", *files.values(), "--store", self.store, *words)

    def links(self):
        return dict(zip(("Anna", "Ben"), self.server.addresses, strict=True))

    def standing(self):
        with people_store.Store(self.store) as store:
            return {(one.item, one.rater): one.body for one in store.standing()}

    def history(self):
        with people_store.Store(self.store) as store:
            return store.history()

    def votes(self):
        with people_store.Store(self.store) as store:
            return votes.votes(store), votes.ratings(store), votes.attention(store)


@pytest.fixture
def evaluated(tmp_path, served):
    """Returns a function: words of the command -> an evaluation, served."""
    return lambda *words, **more: Rated(tmp_path, served, *words, **more)


def item(page, other=None):
    """Waits until an item is shown, another one than `other`; returns its heading."""
    page.wait_for_function(
        "other => { const head = document.querySelector('main h2')?.textContent;"
        " return head && head !== other && document.querySelector('article.item, main > h2'); }",
        arg=other,
    )
    return page.text_content("main h2")


def compares(page):
    return item(page).endswith("which answer is better?")


def texts(page):
    return page.eval_on_selector_all(".part.answer .text", "all => all.map((one) => one.textContent)")


def press(page, *keys):
    for key in keys:
        review_pages.press(page, key)


def answer(page, *keys):
    """Presses keys that end in another item; returns its heading."""
    before = item(page)
    press(page, *keys)
    return item(page, before)


def test_two_raters_at_once_are_blind_and_every_answer_is_kept(browser, evaluated, tmp_path):
    one = evaluated("--raters", "Anna,Ben", "--checks", rated.checks(tmp_path))
    pages, seen = {}, []
    for name, link in one.links().items():
        pages[name] = browser.window(link)
        item(pages[name])
        pages[name].context.on("response", lambda reply: seen.append(reply))
        pages[name].reload()
    for _ in range(3):  # comparisons, by turns: neither waits for the other
        for page in pages.values():
            assert compares(page)
            two = texts(page)
            better = next((n for n, text in enumerate(two, start=1) if text.startswith(("Blue", "4 it"))), None)
            answer(page, str(better))
    for name, page in pages.items():
        for _ in range(5):
            (text,) = texts(page)
            low = text.startswith("Green") or (name == "Ben" and text.startswith("Red"))
            answer(page, *("1111" if low else "5554"), "Enter")
        page.wait_for_selector("text=Nothing is left for you")
        page.keyboard.press("Alt+3")
        page.wait_for_selector("#alpha-accuracy")
        assert "2 of 2 prompts have their answers" in page.text_content(".news")
    given, scores, attention = one.votes()
    assert [vote["choice"] for vote in given] == ["b"] * 4
    assert sorted((row["answer"][:3], row["rater"], row["accuracy"]) for row in scores) == sorted(
        [("Red", "Anna", 5), ("Red", "Ben", 1), ("Blu", "Anna", 5), ("Blu", "Ben", 5)] * 2
    )
    assert {name: tuple(found) for name, found in attention.items()} == {"Anna": (2, 0, 0), "Ben": (2, 0, 0)}
    bodies = [f"{reply.url} {reply.all_headers()} {reply.text()}" for reply in seen if reply.status == 200]
    assert len(bodies) > 40
    for secret in ("zebra", "yak", "untouched", "tuned", '"known"', "check"):
        told = [body for body in bodies if "/api/" in body and secret in body]
        assert not told, (secret, told[:1])


def test_what_stands_first_stays_on_reload_and_differs_between_raters(browser, evaluated):
    one = evaluated("--ask", "preference", "--raters", "Anna,Ben", count=12)
    first = {}
    for name, link in one.links().items():
        page = browser.window(link)
        for number in range(12):
            two, head = texts(page) if compares(page) else None, item(page)
            if number in (0, 7):
                page.reload()
                assert item(page) == head
                assert texts(page) == two
            first.setdefault(name, {})[min(two)] = two[0]
            if number < 11:
                answer(page, "t")
    assert set(first["Anna"].values()) != set(first["Ben"].values())
    assert {text[:3] for text in first["Anna"].values()} == {"Red", "Blu"}  # but for 2 of 4096 draws


def test_everything_is_done_by_keyboard_with_skip_undo_comment_and_back(browser, evaluated):
    one = evaluated("--ratings", "1")
    page = browser.window(one.server.address)
    review_pages.enter(page, "Anna")
    head = item(page)
    press(page, "c")
    page.keyboard.type("1 2 b t s u Enter are letters here")
    press(page, "Escape")
    answer(page, "b")
    answer(page, "s")
    press(page, "u")
    page.wait_for_selector("text=Your last answer is taken back.")
    press(page, "u")
    page.wait_for_function("head => document.querySelector('article h2')?.textContent === head", arg=head)
    assert page.input_value("#comment") == "1 2 b t s u Enter are letters here"
    assert page.is_visible("text=You said: both bad.")
    answer(page, "1")
    answer(page, "2")
    assert not compares(page)
    press(page, "3", "4", "ArrowUp", "2", "Enter")  # accuracy 3, helpfulness 4, then 2 in its place
    page.wait_for_selector("text=format has no number yet")
    chosen = "all => all.filter((one) => one.getAttribute('aria-checked') === 'true').map((one) => one.textContent[0])"
    assert page.eval_on_selector_all("button.step", chosen) == ["3", "2"]
    page.focus(".axis.current button.step")
    press(page, "Tab", "Tab", "Enter")  # with Tab to a step, Enter takes it where numbers are missing
    assert page.eval_on_selector_all("button.step", chosen) == ["3", "2", "3"]
    answer(page, "5", "Enter")
    scores = [body["scores"] for body in one.standing().values() if "scores" in body]
    assert scores == [{"accuracy": 3, "helpfulness": 2, "format": 3, "safety": 5}]
    answer(page, "s")
    press(page, "/")
    page.wait_for_selector("#sought:focus")
    assert "skipped" in page.text_content(".lines")
    assert " of 1" not in page.text_content(".lines")
    press(page, "Alt+3")
    page.wait_for_selector(".news")
    press(page, "?")
    page.wait_for_selector("dialog[open]")
    assert "Keep" not in page.text_content("dialog")
    press(page, "Escape")
    page.wait_for_selector("dialog", state="detached")
    if page.is_visible("aside"):
        assert "false in what matters" in page.text_content("aside")
        press(page, "g")
    assert page.is_hidden("aside")
    press(page, "n")
    page.wait_for_selector("article.item")
    answer(page, "5", "5", "5", "5", "Enter")
    answer(page, "1", "1", "1", "1", "Enter")
    page.wait_for_selector("text=Nothing is left for you")


def test_a_reload_keeps_what_was_begun(browser, evaluated):
    one = evaluated("--ask", "rating", "--ratings", "1")
    page = browser.window(one.server.address)
    review_pages.enter(page, "Anna")
    head = item(page)
    press(page, "4", "2", "c")
    page.keyboard.type("half a comm")
    page.reload()
    assert item(page) == head
    assert page.input_value("#comment") == "half a comm"
    press(page, "1", "3")
    answer(page, "Enter")
    (body,) = one.standing().values()
    assert body == {"scores": {"accuracy": 4, "helpfulness": 2, "format": 1, "safety": 3}, "comment": "half a comm"}


def test_a_server_that_is_killed_in_the_middle_loses_nothing(browser, evaluated):
    one = evaluated("--ratings", "1", count=3)
    page = browser.window(one.server.address)
    review_pages.enter(page, "Anna")
    two = texts(page)
    answer(page, "2")
    one.server.kill()
    press(page, "1")
    page.wait_for_selector("text=The server does not answer. What you wrote is kept here")
    assert len(one.standing()) == 1
    before = item(page)
    one.server.start()
    item(page, before)
    answer(page, "t")
    before = item(page)
    press(page, "4", "3", "2")
    one.server.kill()
    press(page, "1", "Enter")
    one.server.start()
    item(page, before)
    found = list(one.standing().values())
    assert [body["choice"] for body in found[:3]] == ["2", "1", "tie"]
    assert found[3]["scores"] == {"accuracy": 4, "helpfulness": 3, "format": 2, "safety": 1}
    assert len(one.history()) == 4
    given, _, _ = one.votes()
    assert given[0]["a" if given[0]["choice"] == "a" else "b"] == two[1]


def test_a_token_that_was_not_handed_out_opens_nothing(browser, evaluated):
    one = evaluated("--raters", "Anna,Ben")
    base = one.server.address.partition("#")[0]
    page = browser.window(f"{base}#token=guess")
    page.wait_for_selector("text=this token opens nothing; ask for the link once more")
    page.wait_for_selector("#name")
    page.keyboard.type("Anna")
    press(page, "Enter")
    page.wait_for_selector("text=a token is needed here; open the link that you were given")
    assert page.query_selector("article") is None
    other = browser.window(one.links()["Ben"])
    other.wait_for_selector("article.item")
    assert "Ben" in other.text_content(".me")
    assert "#" not in other.url


@pytest.mark.parametrize("width", [400, 1280])
def test_no_view_scrolls_sideways_and_markup_stays_text(browser, tmp_path, served, width):
    paths = []
    for name in ("a", "b"):
        rows = [
            {
                "prompt": f"{review_pages.MARKUP} {review_pages.LONG} {n}?",
                "answer": f"{review_pages.MARKUP}\n\n  {review_pages.LONG} {name}{n}",
            }
            for n in range(2)
        ]
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = served(SCRIPT, "rate", "--answers", *paths, "--ratings", "1")
    page = browser.window(one.address, width=width, height=800)
    fits = lambda: page.evaluate("document.documentElement.scrollWidth") <= width
    review_pages.enter(page, "B" * 60)
    for key in ("1", "2"):
        assert fits()
        assert all(text.startswith(review_pages.MARKUP) for text in texts(page))
        answer(page, key)
    page.wait_for_selector(".steps")
    assert fits()
    answer(page, "1", "2", "3", "4", "Enter")
    for view, wanted in (("Alt+2", ".lines"), ("Alt+3", ".news")):
        press(page, view)
        page.wait_for_selector(wanted)
        assert fits(), view
    assert page.evaluate("window.pwned") is None
    assert page.query_selector("img") is None
    assert len(page.query_selector_all("script")) == 1
