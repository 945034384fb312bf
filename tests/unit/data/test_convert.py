"""`data.py convert`: rows read as the same records in the new format, or are refused by name."""

import json

import pytest

from ftjax import errors
from ftjax.data import convert, preferences, records, rows
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
}
PREFERENCE_HOLDS = {
    "trl": {"text", "chat", "hh"},
    "openai-pairs": {"chat", "hh"},
    "ranked": {"ranked", "scored"},
    "labelled": {"labelled", "score"},
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
            errors.UserError, match=f"^a:1: format '{name}' (cannot hold|would change) .*choose another"
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


def test_an_unknown_format_and_a_broken_row_are_named():
    with pytest.raises(errors.UserError, match=r"unknown format 'sharegtp' \(did you mean 'sharegpt'\?\)"):
        convert.convert(file_of(check_cases.GOOD, of_preferences=False), "sharegtp")
    bad = rows.of_values("a", [(3, {"text": ""})])
    with pytest.raises(errors.UserError, match="a:3: 'text' is empty"):
        convert.convert(bad, "text")
