"""The page of a comparison: whole, without scripts or outside assets, answers escaped, every run and number on it."""

import html
import json
import re
import subprocess
import sys

import pytest

from ftjax.compare import page, tables
from tests import pages, run_folders
from tests.run_folders import flips, told

EVIL = "</pre><script>alert(1)</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    rows = run_folders.lines(flips(0.8))
    for row in rows:
        row["after"]["answer"] += EVIL
        row["prompt"] += " <img src=x>"
    run_folders.write(folder / "one<b>", rows, config={"model": {"path": "<i>base"}})
    run_folders.write(folder / "two", run_folders.lines(flips(0.2, 5)))
    found = told(["base", folder / "one<b>", folder / "two"], bar=0.5)
    return found, page.render(found)


def test_every_element_is_closed_and_nothing_is_fetched_or_run(made):
    pages.assert_stands_alone(made[1])


def test_markup_in_answers_prompts_names_and_configs_is_text(made):
    text = made[1]
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in re.sub("</?mark>", "", text)
    assert "&lt;img src=x&gt;" in text
    assert "one&lt;b&gt;" in text
    assert "&lt;i&gt;base" in text


def test_the_verdict_stands_first_and_every_part_is_there(made):
    found, text = made
    assert text.index('class="verdict good"') < text.index("<h2>")
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles[1:] == [
        *("Metrics", "The smallest capable model", "Parts of the rows", "Rows that changed", "Cost", "Curves"),
        *("Configs, where they differ", "Data"),
    ]
    for line in found["verdict"]:
        assert html.escape(line, quote=True).split("(")[0][1:] in text


def test_every_cell_of_the_tables_is_text():
    head, rows = tables.data(
        {"data": [{"name": "a", "files": [], "paths": ["f"], "hash": "12", "rows": 3, "tokens": None}]}
    )
    assert (head[0], rows) == ("run", [["a", "f", "12", "3", ""]])


def test_reading_and_comparing_needs_no_jax(tmp_path):
    run_folders.write(tmp_path / "a", run_folders.lines(flips(0.5)))
    run_folders.write(tmp_path / "b", run_folders.lines(flips(0.6)))
    program = (
        "import sys\nfrom scripts import compare\n"
        f"words = ['--runs', *{[str(tmp_path / name) for name in 'ab']!r}, '--out', {str(tmp_path / 'o')!r}]\n"
        "status = compare.main(words)\n"
        "print(status, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert json.loads((tmp_path / "o" / "comparison.json").read_text())["baseline"] == "a"
