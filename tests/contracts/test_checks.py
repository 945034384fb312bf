"""Every module of ftjax/data/checks: finds what it is for, nothing else, on one line, and is documented."""

import copy
from pathlib import Path
import re

import pytest

from ftjax.data import check, rows, tokenizer, tokens_of_rows
from tests import check_cases

ROOT = Path(__file__).resolve().parents[2]
RULES = {rule.name: rule for rule in check.rules()}


@pytest.fixture(scope="module")
def base():
    return tokenizer.load(ROOT / "ftjax/assets/base")


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> check.Rule:
    assert request.param in check_cases.CASES, f"add a case of rule {request.param} to tests/check_cases.py"
    return RULES[request.param]


@pytest.fixture
def load(tmp_path, base):
    def loaded(found: list, case: check_cases.Case, name: str, needs: tuple[str, ...]) -> rows.DataFile:
        path = tmp_path / f"{name}{case.ending}"
        path.write_bytes(check_cases.lines(found))
        data = rows.read(str(path))
        if "model" in needs:
            taken = [row.record for row in data.readable]
            (tmp_path / "own.jinja").write_text(case.template or "")
            template = str(tmp_path / "own.jinja") if case.template else None
            data.limit = case.limit
            data.tokens = tokens_of_rows.count(taken, base, template_name=template, progress=lambda *_: None)
        if case.against:
            (tmp_path / "test.jsonl").write_bytes(check_cases.lines(list(case.against)))
            data.against = [rows.read(str(tmp_path / "test.jsonl"))]
        return data

    return loaded


def test_a_rule_finds_the_lines_that_break_it_and_none_in_rows_that_keep_it(rule, load):
    case = check_cases.CASES[rule.name]
    broken = load(case.broken, case, "broken", rule.needs)
    found = list(rule.module.check(broken))
    assert case.lines
    assert {one.line for one in found} == case.lines
    assert found == list(rule.module.check(broken))
    kept = load(case.kept, case, "kept", rule.needs)
    assert list(rule.module.check(kept)) == []


def test_a_finding_is_one_short_line_that_names_no_place_of_its_own(rule, load):
    case = check_cases.CASES[rule.name]
    broken = load(case.broken, case, "broken", rule.needs)
    for line, message in rule.module.check(broken):
        assert line is None or 1 <= line <= len(case.broken)
        assert message
        assert len(message) < 400
        assert message.isprintable()
        assert not message.startswith(broken.path)


def test_a_rule_says_how_bad_it_is_why_and_what_to_do(rule):
    assert rule.severity in check.SEVERITIES
    assert set(rule.needs) <= check.NEEDS.keys()
    for sentence in (rule.why, rule.fix, rule.module.__doc__.partition("\n")[0]):
        assert sentence.endswith(".")
        assert "\n" not in sentence


def test_a_rule_finds_no_more_than_what_is_there_in_a_file_that_nobody_can_train_on(rule, load):
    junk = [5, {}, {"messages": [None]}, {"chosen": 1, "rejected": []}, "{", {"conversations": {"from": "human"}}]
    data = load(junk, check_cases.Case([], set(), []), "junk", rule.needs)
    assert not data.readable
    for line, _ in rule.module.check(data):
        assert line is None or 1 <= line <= len(junk)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if hasattr(rule.module, "repair")])
def test_a_repair_mends_what_the_rule_finds_leaves_the_rest_and_changes_no_row_in_place(name, load):
    rule, case = RULES[name], check_cases.CASES[name]
    before = copy.deepcopy(case.broken)
    mended = [rule.module.repair(row) for row in case.broken]
    assert case.broken == before
    assert any(new is not old for new, old in zip(mended, case.broken, strict=True))
    fewer = list(rule.module.check(load(mended, case, "mended", rule.needs)))
    assert len(fewer) < len(list(rule.module.check(load(case.broken, case, "broken", rule.needs))))
    assert all(rule.module.repair(row) is row for row in case.kept)
    assert [rule.module.repair(row) for row in mended] == mended


def test_a_rule_has_a_row_in_the_documentation_with_its_severity(rule):
    entries = re.findall(r"^\| `(\w+)` \| (error|warning|note) \|", (ROOT / "docs/data.md").read_text(), re.MULTILINE)
    assert dict(entries).get(rule.name) == rule.severity
    assert len(entries) == len(RULES)
