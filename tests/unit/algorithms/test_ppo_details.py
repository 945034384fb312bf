"""The table of docs/ppo.md says where each detail is, by which keys it is set and which test holds it."""

import re

import pytest

from configs import defaults
from ftjax import config as configs
from tests.bases import ROOT

PAGE = (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([^`]+)`")


def cells(line):
    """Returns number, detail, where, keys and tests of a row."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


LINES = [cells(line) for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]


@pytest.fixture(scope="module")
def tests():
    """The names of all tests."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.M)}


def test_the_page_has_all_27_details_in_order():
    assert [int(line[0]) for line in LINES] == [*range(1, 28)]


def test_every_detail_has_a_place_keys_and_a_test(tests):
    known = configs.flatten(defaults.ppo())
    for number, _, where, keys, held in LINES:
        path, name = NAMED.findall(where)
        assert re.search(rf"^\s*(def|class) {name}\b", (ROOT / path).read_text(encoding="utf-8"), re.M), number
        assert set(NAMED.findall(keys)) <= set(known), number
        named = NAMED.findall(held)
        assert named, number
        assert set(named) <= tests, number


def test_every_test_that_the_page_names_exists(tests):
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - tests == set()


def test_every_detail_is_named_where_it_happens():
    places = ("algorithms", "rl", "train", "losses")
    code = [path for room in places for path in (ROOT / "ftjax" / room).glob("*.py")] + [ROOT / "ftjax" / "rollouts.py"]
    texts = "\n".join(path.read_text(encoding="utf-8") for path in code if "docs/ppo.md" in path.read_text("utf-8"))
    missing = [n for n in range(1, 28) if f"({n})" not in texts and f"detail {n} of docs/ppo.md" not in texts]
    assert missing == []
