"""The page of `data.py check --report`: whole, without scripts or outside assets, escaped, private data masked."""

import re

import pytest

from ftjax import errors
from ftjax.data import check, page, rows
from tests import check_cases, pages

PRIVATE = "jane.doe@corp-mail.org"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    found = [
        *check_cases.MANY,
        check_cases.chat("<script>alert(1)</script> & <b>?", f"</pre><script src='x'></script> {{{{name}}}} {PRIVATE}"),
        check_cases.chat("Who opens?", check_cases.LONG),
        check_cases.chat("Who opens?", check_cases.LONG.replace("his dog", "its <i>dog")),
        {"text": ""},
    ]
    path = tmp_path_factory.mktemp("page") / "rows<1>.jsonl"
    path.write_bytes(check_cases.lines(found))
    data = rows.read(str(path))
    report = check.run(data, progress=lambda _: None)
    return data, report, page.render(data, report)


def test_every_element_is_closed_and_the_page_needs_nothing_from_outside_and_runs_no_script(made):
    pages.assert_stands_alone(made[2])


def test_what_the_data_holds_of_markup_is_text(made):
    text = made[2]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "rows&lt;1&gt;.jsonl" in text
    assert "<script" not in text


def test_the_page_names_every_rule_that_found_something_with_its_number_and_shows_private_data_nowhere(made):
    _, report, text = made
    for name, found in report.by_rule().items():
        assert f"<summary><b>{name}</b> {found[0].severity}, {len(found):,} found</summary>" in text
    assert PRIVATE not in text
    assert "jane****" in text


def test_nearly_equal_rows_stand_side_by_side_with_what_differs_marked(made):
    data, _, text = made
    assert [one.row for one in data.near] == [62]
    assert "walks <mark>his</mark> <mark>dog</mark> along" in text
    assert "walks <mark>its</mark> <mark>&lt;i&gt;dog</mark> along" in text


def test_the_map_has_a_point_for_every_row_and_the_histograms_have_all_rows(made):
    data, report, text = made
    assert text.count("<circle") == len(data.samples) + len(report.summary["clusters"])
    bars = re.findall(r"<title>[\d,]+ to [\d,]+: ([\d,]+) rows</title>", text)
    assert sum(int(count.replace(",", "")) for count in bars) == 2 * len(data.samples)


def test_a_page_that_is_there_is_not_written_over(made, tmp_path):
    data, report, text = made
    page.write(tmp_path / "new", data, report)
    assert (tmp_path / "new" / "index.html").read_text(encoding="utf-8") == text
    with pytest.raises(errors.UserError, match="is there already"):
        page.write(tmp_path / "new", data, report)


def test_one_message_of_many_lines_is_there_once_with_the_first_of_them(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(check_cases.lines([*check_cases.MANY, *[{"text": ""}] * 30]))
    data = rows.read(str(path))
    text = page.render(data, check.run(data, progress=lambda _: None))
    shown = "line 61<br>line 62<br>line 63<br>line 64<br>and 26 more"
    assert text.count(shown) == 1
    assert "<b>missing_content</b> error, 30 found" in text
    assert "data.py check --all names them" not in text
