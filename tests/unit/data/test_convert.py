"""`data.py convert`: rows read as the same records in the new format, or are refused by name."""

import datetime
import json

import pytest

from ftjax import errors
from ftjax.data import convert, files, preferences, records, rows
from tests import check_cases

TURNS = check_cases.turns("system", "Be kind.", "user", "Hi", "assistant", "Hello.", "user", "Bye", "assistant", "Bye.")
WEIGHTED = {"messages": [*TURNS["messages"][:2], {**TURNS["messages"][2], "weight": 0}, *TURNS["messages"][3:]]}
THOUGHT = {"messages": [TURNS["messages"][1], {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}]}
CALLED = check_cases.called(check_cases.TOLD, check_cases.SAID)
SHORT = check_cases.called(
    {"role": "tool", "content": "rain"}, check_cases.SAID
)  # without the id that ShareGPT has no key for
SHORT["messages"][1] = {
    "role": "assistant",
    "tool_calls": [{"function": {"name": "weather", "arguments": {"town": "Glen"}}}],
}
COMPLETION, TEXT = {"prompt": "2 + 2 =", "completion": " 4"}, {"text": "Hello there."}
ANSWERS = {"chat": check_cases.GOOD, "turns": TURNS, "weighted": WEIGHTED, "thought": THOUGHT, "called": CALLED,
           "short": SHORT, "completion": COMPLETION, "text": TEXT}  # fmt: skip
# Which format holds which row; all else is refused.
HOLDS = {
    "messages": {"chat", "turns", "weighted", "thought", "called", "short"},
    "openai": {"chat", "turns", "weighted", "called", "short"},
    "sharegpt": {"chat", "turns", "weighted", "short"},
    "alpaca": {"chat", "turns"},
    "question": {"chat"},
    "completion": {"chat", "completion", "thought", "weighted"},
    "text": {"text"},
    "trl": set(),
    "openai-pairs": set(),
    "ranked": set(),
    "labelled": set(),
}
CHAT_PAIR = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello."}],
             "rejected": [{"role": "assistant", "content": "No."}], "margin": 2.0}  # fmt: skip
PREFERENCES = {
    "text": check_cases.pair("Hi", "Hello.", "No."),
    "chat": CHAT_PAIR,
    "hh": {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
    "ranked": {"prompt": "Hi", "completions": ["No.", "Hello.", "Hey."], "ranks": [3, 1, 1]},
    "scored": {"prompt": "Hi", "completions": ["No.", "Hello.", "Hey."], "scores": [0.5, 2.0, 1.0]},
    "labelled": {"prompt": "Hi", "completion": "Hello.", "label": True},
    "score": {"prompt": "Hi", "completion": "Hello.", "score": 0.25},
    "judged": {"prompt": "Hi", "completions": ["No.", "Hello."], "scores": [0.5, 2.0]},
}
PREFERENCE_HOLDS = {
    "trl": {"text", "chat", "hh"},
    "openai-pairs": {"chat", "hh"},
    "ranked": {"text", "hh", "ranked", "scored", "labelled", "score", "judged"},
    "labelled": {"labelled"},  # a `score` alone does not say that a row is a preference
    **{name: set() for name in ("messages", "openai", "sharegpt", "alpaca", "question", "completion", "text")},
}


def file_of(row, *, of_preferences):
    read = preferences.from_row if of_preferences else records.from_row
    return rows.DataFile("a", [rows.Row(1, row, read(row, "a:1"), None)], of_preferences)


def cases():
    for kind, holds, found in (("answers", HOLDS, ANSWERS), ("pairs", PREFERENCE_HOLDS, PREFERENCES)):
        for name in convert.FORMATS:
            for row in found:
                yield pytest.param(kind, name, row, row in holds[name], id=f"{kind}-{row}-to-{name}")


@pytest.mark.parametrize(("kind", "name", "row", "holds"), [*cases()])
def test_a_row_reads_as_the_same_record_in_the_new_format_or_is_refused(kind, name, row, holds):
    source = {**(ANSWERS if kind == "answers" else PREFERENCES)[row], "tag": "x"}
    data = file_of(source, of_preferences=kind == "pairs")
    if not holds:
        with pytest.raises(
            errors.UserError, match=f"^a:1: format '{name}' (cannot hold|would change|would make) .*choose another"
        ):
            convert.convert(data, name)
        return
    (made,) = convert.convert(data, name)
    read = preferences.from_row if kind == "pairs" else records.from_row
    again = repr(read(json.loads(json.dumps(made)), "a:1"))
    if name == "completion":  # there a prompt's turns have weight 0, which means nothing but for the assistant's
        again = again.replace("weight=0", "weight=1")
        trained = lambda record: [turn.weight for turn in record.messages if turn.role == "assistant"]
        if row != "completion":
            assert trained(read(made, "a:1")) == trained(data.rows[0].record)
        assert again == repr(data.rows[0].record).replace("weight=0", "weight=1")
    else:
        assert again == repr(data.rows[0].record)
    assert made["tag"] == "x"


def test_each_format_has_the_columns_that_it_is_known_by():
    row = file_of(TURNS, of_preferences=False)
    assert convert.convert(row, "alpaca") == [
        {"instruction": "Bye", "output": "Bye.", "system": "Be kind.", "history": [["Hi", "Hello."]]}
    ]
    assert convert.convert(row, "sharegpt")[0]["conversations"][1] == {"from": "human", "value": "Hi"}
    call = convert.convert(file_of(CALLED, of_preferences=False), "openai")[0]["messages"][1]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"town": "Glen"}
    pair = convert.convert(file_of(CHAT_PAIR, of_preferences=True), "openai-pairs")[0]
    assert pair.keys() == {"input", "preferred_output", "non_preferred_output", "margin"}


def test_what_would_overwrite_a_column_of_the_row_is_refused():
    data = file_of({**check_cases.GOOD, "answer": "mine"}, of_preferences=False)
    with pytest.raises(errors.UserError, match="the column 'answer' beside its own of that name"):
        convert.convert(data, "question")


OFFERED = {"input": {**CHAT_PAIR, "messages": CHAT_PAIR["prompt"]}, "preferred_output": CHAT_PAIR["chosen"],
           "non_preferred_output": CHAT_PAIR["rejected"]}  # fmt: skip
INNER = [
    ("time", {"messages": [{"role": "user", "content": "Hi", "time": 5}, check_cases.SAID]}, "a message"),
    ("id", {"conversations": [{"from": "human", "value": "Hi", "id": 1}, {"from": "gpt", "value": "Ho"}]}, "a turn"),
    ("index", {"messages": [CALLED["messages"][0], {"role": "assistant", "tool_calls": [
        {"index": 0, "function": {"name": "weather", "arguments": {}}}]}]}, "a tool call"),
    ("strict", {"messages": [CALLED["messages"][0], {"role": "assistant", "tool_calls": [
        {"function": {"name": "weather", "arguments": {}, "strict": True}}]}]}, "a tool call"),
    ("parallel_tool_calls", {**OFFERED, "input": {"messages": CHAT_PAIR["prompt"], "parallel_tool_calls": True}},
     "'input'"),
    ("time", {**CHAT_PAIR, "chosen": [{**check_cases.SAID, "time": 5}]}, "a message"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "row", "what"), INNER)
def test_a_key_that_no_record_holds_is_refused_and_lost_only_where_it_is_named(key, row, what):
    data = file_of(row, of_preferences=preferences.recognises(row))
    name = "trl" if data.of_preferences else "messages"
    with pytest.raises(errors.UserError, match=f"^a:1: the key '{key}' of {what} would be lost.* by --drop {key}"):
        convert.convert(data, name)
    assert f'"{key}"' not in json.dumps(convert.convert(data, name, drop=[key]))


def test_an_answer_that_is_json_of_messages_is_text():
    text = json.dumps([{"from": "Rome", "to": "Oslo"}])
    data = file_of(check_cases.chat("Which flight?", text), of_preferences=False)
    assert convert.convert(data, "messages")[0]["messages"][1]["content"] == text


def test_scores_of_a_pair_stay_beside_the_margin_that_they_make():
    scored = {**CHAT_PAIR, "score_chosen": 4.0, "score_rejected": 1.5}
    del scored["margin"]
    (made,) = convert.convert(file_of(scored, of_preferences=True), "openai-pairs")
    assert (made["margin"], made["score_chosen"], made["score_rejected"]) == (2.5, 4.0, 1.5)
    ranked = {**PREFERENCES["scored"], "margin": 3}  # which says nothing there, and is the user's all the same
    assert convert.convert(file_of(ranked, of_preferences=True), "ranked")[0]["margin"] == 3


def test_a_column_that_would_make_preferences_of_answers_is_refused():
    data = file_of({**TURNS, "label": 1}, of_preferences=False)
    assert convert.convert(data, "alpaca")[0]["label"] == 1
    data = file_of({**check_cases.GOOD, "label": 1}, of_preferences=False)
    with pytest.raises(errors.UserError, match=r"'completion' would make this row a preference, by .*label"):
        convert.convert(data, "completion")


def test_bytes_and_numbers_that_are_not_finite_are_refused_and_dates_are_text(tmp_path):
    day = datetime.date(2026, 1, 2)
    data = file_of({**check_cases.GOOD, "day": day}, of_preferences=False)
    files.write_rows(tmp_path / "day.jsonl", convert.convert(data, "messages"))
    assert json.loads((tmp_path / "day.jsonl").read_text())["day"] == "2026-01-02"
    data = file_of({**check_cases.GOOD, "image": b"\x00\xff"}, of_preferences=False)
    with pytest.raises(errors.UserError, match=r"a:1: JSON cannot hold bytes \(b'.x00.xff'\)"):
        convert.convert(data, "messages")
    for bad in (float("nan"), float("inf")):
        values = convert.convert(file_of({**check_cases.GOOD, "x": [bad]}, of_preferences=False), "messages")
        with pytest.raises(errors.UserError, match="row 2: JSON cannot hold a number that is not finite"):
            files.write_rows(tmp_path / "bad.jsonl", [check_cases.GOOD, *values])
    assert [file.name for file in tmp_path.iterdir()] == ["day.jsonl"]


def test_an_unknown_format_and_a_broken_row_are_named():
    with pytest.raises(errors.UserError, match=r"unknown format 'sharegtp' \(did you mean 'sharegpt'\?\)"):
        convert.convert(file_of(check_cases.GOOD, of_preferences=False), "sharegtp")
    bad = rows.of_values("a", [(3, {"text": ""})])
    with pytest.raises(errors.UserError, match="a:3: 'text' is empty"):
        convert.convert(bad, "text")
