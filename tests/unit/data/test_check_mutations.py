"""Whole files broken in seeded ways: what training refuses is an error, what it takes is read the same."""

import json
import random

import pytest

from ftjax import errors
from ftjax.data import check, preferences, records, repair, rows
from tests import check_cases

SEEDS = 1000
TRANSCRIPT = "\n\nHuman: How are you?\n\nAssistant: {}"
CLEAN = {
    "messages": [check_cases.GOOD, check_cases.turns("system", "Be kind.", "user", "Hi", "assistant", "Hello.")],
    "tools": [check_cases.called(check_cases.TOLD, check_cases.SAID), check_cases.GOOD],
    "sharegpt": [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}] * 2,
    "completion": [{"prompt": "2 + 2 =", "completion": " 4"}, {"prompt": "2 + 3 =", "completion": " 5"}],
    "chats": [
        {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello."}]}
    ]
    * 2,
    "alpaca": [
        {"instruction": "Say it.", "input": "Hi", "output": "Hello.", "history": [["A", "B"]], "system": "Be kind."}
    ]
    * 2,
    "question": [{"question": "How much is 2 + 2?", "answer": "4"}, {"question": "And 3?", "answer": "7"}],
    "text": [{"text": "Hello there."}, {"text": "Hello again."}],
    "pairs": [check_cases.pair("Hi", "Hello.", "No."), check_cases.pair("Bye", "Bye.", "No.")],
    "transcripts": [{"chosen": TRANSCRIPT.format("Well."), "rejected": TRANSCRIPT.format("Bad.")}] * 2,
    "openai": [
        {
            "input": {"messages": [{"role": "user", "content": "Hi"}]},
            "preferred_output": [{"role": "assistant", "content": "Hello."}],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        }
    ]
    * 2,
    "ranked": [{"prompt": "Hi", "completions": ["Hello.", "No."], "ranks": [1, 2]}] * 2,
    "labelled": [{"prompt": "Hi", "completion": "Hello.", "label": True}] * 2,
}
OTHERS = (
    None,
    0,
    -1,
    2.5,
    True,
    "",
    " ",
    "x",
    "\ud800",
    "{",
    "[1",
    [],
    [None],
    ["a"],
    {},
    {"role": "user"},
    10**40,
    "\x00",
)
ROLES = ("system", "user", "assistant", "tool", "human", "gpt", "asistant", "", "Human")


def places(value):
    """Returns (container, key) of everything inside of a value."""
    found = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found += [(value, key), *places(item)]
    return found


def broken(seed: int) -> tuple[str, bytes]:
    """Returns the ending and bytes of a file with one to three things wrong."""
    draw = random.Random(seed)
    name = draw.choice(sorted(CLEAN))
    found = json.loads(json.dumps(CLEAN[name]))
    for _ in range(draw.randint(1, 3)):
        container, key = draw.choice(places(found))
        kind = draw.choice(("lose", "lose", "type", "type", "rename", "double", "swap", "role"))
        if kind == "lose":
            del container[key]
        elif kind == "type":
            container[key] = draw.choice(OTHERS)
        elif kind == "rename" and isinstance(container, dict):
            container[draw.choice((f"{key}s", key.upper(), "x", "\ud800"))] = container.pop(key)
        elif kind == "double" and isinstance(container, list):
            container.insert(key, json.loads(json.dumps(container[key])))
        elif kind == "swap":
            other = draw.choice(list(container) if isinstance(container, dict) else range(len(container)))
            container[key], container[other] = container[other], container[key]
        elif kind == "role" and key in ("role", "from"):
            container[key] = draw.choice(ROLES)
        if not found:
            return ".jsonl", b"{}\n"
    ending = draw.choice((".jsonl", ".jsonl", ".json"))
    raw = check_cases.lines(found) if ending == ".jsonl" else json.dumps(found, indent=1).encode()
    if draw.random() < 0.3:  # bytes cut out, or of no character
        at = draw.randrange(len(raw))
        raw = (
            raw[:at] + draw.choice((b"", b"\xff", b'"', b"\n", b"\x00")) + raw[at + draw.choice((0, 1, 7, len(raw))) :]
        )
    return ending, raw


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    found = []
    for seed in range(SEEDS):
        ending, raw = broken(seed)
        path = folder / f"{seed}{ending}"
        path.write_bytes(raw)
        found.append(str(path))
    return found


def outcome(call, *arguments):
    """Returns what a call returns, or the UserError that it raises; any other exception is a failure."""
    try:
        return call(*arguments)
    except errors.UserError as refusal:
        return refusal


def test_a_broken_file_is_refused_with_an_error_at_the_line_or_read_as_training_reads_it(files):
    refused = taken = 0
    for path in files:
        data = outcome(rows.read, path)
        if isinstance(data, errors.UserError):  # nothing in it can be read: status 2
            assert isinstance(outcome(records.read, path), errors.UserError)
            continue
        report = check.run(data, progress=lambda _: None)
        json.dumps(report.as_dict(), ensure_ascii=False).encode()
        assert "\n" not in "".join(finding.message for finding in report.findings)
        said = outcome(preferences.read if data.of_preferences else records.read, path)
        wrong = {finding.line for finding in report.findings if finding.severity == "error"}
        if isinstance(said, errors.UserError):
            refused += 1
            assert report.failed(strict=False), path
            unread = {row.line for row in data.rows if row.record is None}
            assert unread <= wrong or None in wrong, path
        else:
            taken += 1
            assert [row.record for row in data.rows] == said
            assert all(row.record is not None for row in data.rows)
    assert refused > SEEDS // 3  # the ways to break a file do break it
    assert taken > SEEDS // 10


def test_a_repaired_copy_of_a_broken_file_has_no_more_errors_than_the_file(files):
    changed = 0
    for path in files[: SEEDS // 4]:
        data = outcome(rows.read, path)
        if isinstance(data, errors.UserError):
            continue
        mended = repair.repaired(data)
        changed += bool(mended.changes)
        copy = rows.of_values(path, list(enumerate(mended.values, start=1)))
        assert sum(row.record is None for row in copy.rows) <= sum(row.record is None for row in data.rows)
    assert changed > 10
