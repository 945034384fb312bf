"""What tests of the pages in a browser share: a file under review, served, and what a hand on the keyboard does."""

import json

from ftjax.people import store as people_store
from tests import bases

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
