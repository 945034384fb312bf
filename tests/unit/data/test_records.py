import csv
import gzip
import json
from pathlib import Path
import re

import pytest

from ftjax import errors
from ftjax.data import records, rows

ASK = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
GOOD = json.dumps({"messages": [ASK, ANSWER]})


def chat(*messages):
    return json.dumps({"messages": list(messages)})


BAD_SECOND_LINES = {
    "broken JSON": ("{broken", r"broken JSON at column 2"),
    "not an object": ("[1, 2]", r"a row must be a JSON object \{\.\.\.\}, not list"),
    "no column": (
        '{"mesages": [], "id": 3}',
        r"no 'messages' column .*found: 'mesages', 'id'.*did you mean 'messages'\?",
    ),
    "prompt alone": (
        '{"prompt": "a", "completon": "b"}',
        r"'prompt' without 'completion' \(did you mean 'completon'\?\)",
    ),
    "messages as text": ('{"messages": "Hi"}', r"'messages' must be a list of messages, not str"),
    "no messages": ('{"messages": []}', r"'messages' is an empty list"),
    "message as text": ('{"messages": ["Hi"]}', r"message 1 must be an object with role and content, not str"),
    "no role": (
        chat({"rol": "user", "content": "x"}),
        r"message 1 has no 'role' \(did you mean 'rol'\?\); keys found: rol",
    ),
    "no content": (chat(ASK, {"role": "assistant"}), r"message 2 has no 'content'; keys found: role"),
    "unknown role": (
        chat({"role": "asistant", "content": "x"}),
        r"unknown role 'asistant' \(did you mean 'assistant'\?\); "
        r"roles: system, developer, user, assistant, tool",
    ),
    "role is no text": (chat({"role": 3, "content": "x"}), r"unknown role 3; roles: system"),
    "no assistant": (chat(ASK, ASK), r"no assistant turn to learn from \(roles: user, user\)"),
    "empty answer": (chat(ASK, {"role": "assistant", "content": " \n"}), r"message 2: empty answer"),
    "weight": (chat(ASK, {**ANSWER, "weight": 0.5}), r"message 2: weight 0\.5 must be 0 \(context only\) or 1"),
    "weight as text": (chat(ASK, {**ANSWER, "weight": "1"}), r"message 2: weight '1' must be 0"),
    "weight of a user": (chat({**ASK, "weight": 0}, ANSWER), r"message 1: 'weight' is for assistant messages"),
    "content is a number": (chat({"role": "user", "content": 3}, ANSWER), r"message 1: content must be text, not int"),
    "image": (
        chat({"role": "user", "content": [{"type": "image_url"}]}, ANSWER),
        r"a part of type 'image_url'; only text",
    ),
    "tool calls of a user": (
        chat({**ASK, "tool_calls": [{"name": "f"}]}, ANSWER),
        r"message 1: 'tool_calls' in a message of",
    ),
    "arguments": (
        chat(ASK, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        r"message 2: the arguments of tool call 'f' are not JSON",
    ),
    "tools": (json.dumps({"messages": [ASK, ANSWER], "tools": ["f"]}), r"'tools' must be a list of JSON schemas"),
    "sharegpt speaker": (
        '{"conversations": [{"from": "robot", "value": "x"}]}',
        r"turn 1: unknown role 'robot' in 'from'",
    ),
    "sharegpt shape": ('{"conversations": {"from": "human"}}', r"'conversations' must be a list of turns, not dict"),
    "empty completion": ('{"prompt": "a", "completion": " "}', r"empty answer: 'completion' holds no text"),
    "completion is a number": (
        '{"prompt": "a", "completion": 4}',
        r"'completion' must be text or a list of messages, not int",
    ),
    "completion asks": (json.dumps({"prompt": [ASK], "completion": [ASK]}), r"no assistant turn in 'completion'"),
    "empty text": ('{"text": "  "}', r"'text' is empty"),
    "text is a number": ('{"text": 5}', r"text must be text, not int"),
    "half a surrogate": ('{"text": "a\\ud800"}', r"half of a surrogate pair"),
}


@pytest.mark.parametrize("case", BAD_SECOND_LINES)
def test_a_bad_row_is_refused_in_one_line_with_its_file_and_line(case, tmp_path):
    line, message = BAD_SECOND_LINES[case]
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(errors.UserError, match=message) as caught:
        records.read(str(path))
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_are_named_with_line_and_offset(tmp_path):
    path = tmp_path / "chats.jsonl"
    start = f"{GOOD}\n".encode()
    path.write_bytes(start + b'{"text": "\xffab"}\n')
    with pytest.raises(
        errors.UserError, match=rf"chats\.jsonl:2: not UTF-8 at byte {len(start) + 10} of the file \(0xff\)"
    ):
        records.read(str(path))


def test_utf16_is_recognised(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(errors.UserError, match=r":1: not UTF-8 at byte 0 .* looks like UTF-16"):
        records.read(str(path))


def test_a_missing_file_names_the_one_that_was_meant(tmp_path):
    (tmp_path / "train.jsonl").write_text(GOOD)
    with pytest.raises(errors.UserError, match=r"trian\.jsonl: no such file \(did you mean 'train\.jsonl'\?\)"):
        records.read(str(tmp_path / "trian.jsonl"))
    with pytest.raises(errors.UserError, match=r"no such file; .* holds train\.jsonl"):
        records.read(str(tmp_path / "other.csv"))
    with pytest.raises(errors.UserError, match=r"there is no folder"):
        records.read(str(tmp_path / "nowhere" / "train.jsonl"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_an_empty_file_is_refused(name, tmp_path):
    (tmp_path / name).write_text("\n \n")
    with pytest.raises(errors.UserError, match=rf"{re.escape(name)}: the file is empty"):
        records.read(str(tmp_path / name))


def test_an_unknown_ending_lists_the_known_ones(tmp_path):
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(
        errors.UserError, match=r"a\.xlsx: unknown kind of data file; known endings: .*\.jsonl.*\.parquet"
    ):
        records.read(str(tmp_path / "a.xlsx"))


def test_a_cut_off_gzip_file_is_refused(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode() * 50)[:-20])
    with pytest.raises(errors.UserError, match="not a whole gzip file"):
        records.read(str(path))


def test_json_rows_carry_the_line_where_they_begin(tmp_path):
    path = tmp_path / "rows.json"
    rows = [{"text": f"t{i}"} for i in range(4)]
    path.write_text(json.dumps(rows, indent=1))
    found = records.read(str(path))
    assert [record.text for record in found] == ["t0", "t1", "t2", "t3"]
    lines = path.read_text().splitlines()
    assert [lines[int(record.where.rpartition(":")[2]) - 1] for record in found] == [" {"] * 4
    assert found[2].where == f"{path}:8"


def test_json_rows_that_share_a_line_have_places_of_their_own(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": f"t{i}"} for i in range(4)]))  # as json.dump writes it: one line
    found = records.read(str(path))
    assert [record.where for record in found] == [f"{path}:1 (row {n})" for n in (1, 2, 3, 4)]
    assert [rows.number(record.where) for record in found] == [1, 2, 3, 4]
    assert records.rows_at(str(path), [found[2].where]) == {found[2].where: {"text": "t2"}}
    path.write_text('[{"text": "a"}, {"text": "b"},\n 3, {"text": "c"}]')
    tried = [*rows.attempts(str(path))]
    assert [where for where, _ in tried] == [f"{path}:{line} (row {n})" for n, line in enumerate((1, 1, 2, 2), start=1)]
    assert str(tried[2][1]) == f"{path}:2 (row 3): a row must be a JSON object {{...}}, not int"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"text": "a"},\n {"text": }]', r":2: broken JSON at column 11"),
        ('[{"text": "a"}\n {"text": "b"}]', r":1: broken JSON after this row: expected ','"),
        ('[{"text": "a"},\n', r":2: broken JSON: the list is not closed"),
        ('[{"text": "a"}]\n{}', r":1: broken JSON: text after the closing"),
        ("[]", r"the list is empty"),
        ("[3]", r":1: a row must be a JSON object \{\.\.\.\}, not int"),
    ],
)
def test_broken_json_files_are_refused_with_the_line(text, message, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(errors.UserError, match=message):
        records.read(str(path))


def test_one_object_a_data_list_and_misnamed_json_lines_are_all_read(tmp_path):
    shapes = {'{"text": "a"}': 1, '{"data": [{"text": "a"}, {"text": "b"}]}': 2, '{"text": "a"}\n{"text": "b"}': 2}
    for text, count in shapes.items():
        (tmp_path / "rows.json").write_text(text)
        assert len(records.read(str(tmp_path / "rows.json"))) == count


def test_csv_records_carry_their_first_line_though_fields_hold_newlines(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["prompt", "completion"], ["two\nlines", "a, b"], ["x", "y"]])
    found = records.read(str(path))
    assert [(r.prompt, r.completion, r.where) for r in found] == [
        ("two\nlines", "a, b", f"{path}:2"),
        ("x", "y", f"{path}:4"),
    ]


def test_a_csv_line_with_too_many_fields_is_refused_with_its_line(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\na,b\na,b,c\n")
    with pytest.raises(errors.UserError, match=r"rows\.csv:3: 3 fields, but the header has 2 columns"):
        records.read(str(path))
    path.write_text("prompt,completion\n")
    with pytest.raises(errors.UserError, match="no rows below the header"):
        records.read(str(path))


def test_a_csv_header_with_a_name_twice_is_refused_and_empty_names_are_not(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,completion\na,b,c\n")
    with pytest.raises(errors.UserError, match=r"rows\.csv:1: the header has the column 'completion' twice"):
        records.read(str(path))
    path.write_text("prompt,completion,,\na,b,,\n")  # as spreadsheets write empty columns
    assert [(r.prompt, r.completion) for r in records.read(str(path))] == [("a", "b")]


def test_csv_cells_may_hold_messages_as_json(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["messages"], [json.dumps([ASK, ANSWER])], ["[{]"]])
    with pytest.raises(errors.UserError, match=r"rows\.csv:3: 'messages' is text but not JSON"):
        records.read(str(path))


def test_parquet_and_datasets_folders_give_the_same_records_as_jsonl(tmp_path):
    import datasets
    import pyarrow
    from pyarrow import parquet

    rows = [
        {
            "messages": [
                {**ASK, "weight": None},
                {**ANSWER, "weight": 0},
                {**ASK, "weight": None},
                {**ANSWER, "weight": 1},
            ]
        },
        {"messages": [{**ASK, "weight": None}, {**ANSWER, "weight": None}]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "folder"))
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "one"))
    wanted = [record.messages for record in records.read(str(tmp_path / "a.jsonl"))]
    for name in ("a.parquet", "folder", "one"):
        found = records.read(str(tmp_path / name))
        assert [record.messages for record in found] == wanted
        assert [record.where for record in found] == [f"{tmp_path / name}:1", f"{tmp_path / name}:2"]


def test_a_folder_of_several_splits_asks_for_one(tmp_path):
    import datasets

    part = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(errors.UserError, match=r"both: holds 2 splits; name one of .*both/train, .*both/test"):
        records.read(str(tmp_path / "both"))
    assert len(records.read(str(tmp_path / "both" / "test"))) == 1
    with pytest.raises(errors.UserError, match=r"not a datasets folder \(no state\.json; it holds both\)"):
        records.read(str(tmp_path))


def test_a_damaged_parquet_file_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(errors.UserError, match=r"a\.parquet: not a readable Parquet file"):
        records.read(str(tmp_path / "a.parquet"))


def test_sharegpt_turns_become_messages_with_tool_calls():
    turns = [
        {"from": "human", "value": "Cook"},
        {"from": "function_call", "value": '{"name": "find", "arguments": {"what": "rice"}}'},
        {"from": "observation", "value": "[]"},
        {"from": "gpt", "value": "Nothing."},
    ]
    found = records.from_row(
        {"conversations": turns, "system": "Be kind.", "tools": '[{"name": "find"}]', "id": 4}, "a:1"
    )
    assert [message.role for message in found.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert found.messages[2].tool_calls[0]["function"] == {"name": "find", "arguments": {"what": "rice"}}
    assert found.tools == ({"name": "find"},)
    assert found.extra == {"id": 4}


def test_arguments_as_json_text_and_as_an_object_are_the_same_call():
    def call(arguments):
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
        }
        return records.from_row({"messages": [ASK, message]}, "a:1")

    assert call('{"x": 1}') == call({"x": 1})


def test_a_conversational_completion_trains_only_on_its_own_answers():
    found = records.from_row({"prompt": [ASK, ANSWER, ASK], "completion": [ANSWER]}, "a:1")
    assert [message.weight for message in found.messages if message.role == "assistant"] == [0, 1]
    assert records.from_row({"prompt": "Hi", "completion": [ANSWER]}, "a:1").messages == (
        records.Message(role="user", content="Hi", weight=0),
        records.Message(role="assistant", content="Hello"),
    )


def test_columns_that_a_table_fills_with_none_are_absent():
    found = records.from_row({"messages": None, "text": "Hello", "tools": None, "id": None}, "a:1")
    assert found == records.Text(text="Hello", where="a:1", extra={})


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    found = records.from_row({"messages": [ASK, {"role": "assistant", "content": parts}]}, "a:1")
    assert found.messages[1].content == "Hello"


def test_line_separators_inside_a_string_do_not_split_a_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"text": "one\u2028still one"}\r\n{"text": "two"}\r\n', encoding="utf-8", newline="")
    assert [record.text for record in records.read(str(path))] == ["one\u2028still one", "two"]


def test_alpaca_and_question_rows_are_chats_and_their_answers_are_trained_on():
    alpaca = {
        "instruction": "Add.",
        "input": "2, 3",
        "output": "5",
        "history": [["Hi", "Hello."]],
        "system": "Be kind.",
    }
    found = records.from_row({**alpaca, "tag": "x"}, "a:1")
    assert [(turn.role, turn.content) for turn in found.messages] == [
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Add.\n2, 3"), ("assistant", "5"),
    ]  # fmt: skip
    assert found.extra == {"tag": "x"}
    found = records.from_row({"question": "2 + 3?", "answer": "5", "input": ""}, "a:1")
    assert [(turn.role, turn.content, turn.weight) for turn in found.messages] == [
        ("user", "2 + 3?", 1),
        ("assistant", "5", 1),
    ]
    for row, reason in (
        ({"question": "2 + 3?", "answer": " "}, "empty answer: 'answer' holds no text"),
        ({"instruction": "Add.", "output": ""}, "empty answer: 'output' holds no text"),
        ({"instruction": "", "output": "5"}, "'instruction' is empty"),
        ({"question": "2 + 3?", "answer": 5}, "'answer' must be text, not int"),
        ({"instruction": "Add.", "output": "5", "history": ["Hi"]}, "'history' must be a list of"),
        ({"instruction": "Add.", "outputs": "5"}, r"'instruction' without 'output' \(did you mean 'outputs'\?\)"),
    ):
        with pytest.raises(errors.UserError, match=f"^a:1: .*{reason}"):
            records.from_row(row, "a:1")


def test_published_files_are_read_or_refused_for_the_right_reason(shared_data: Path):
    read = lambda name: records.read(str(shared_data / name))
    assert len(read("lint_fixtures/openai_toy_chat_fine_tuning.jsonl")) == 5
    assert len(read("lint_fixtures/axolotl_conversation.json")) == 1
    assert len(read("glaive_toolcall_sharegpt/glaive_toolcall_en_first120.jsonl.gz")) == 120
    assert len(read("gsm8k_train/train.jsonl.gz")) == 7473
    assert len(read("lint_fixtures/llamafactory_identity.json")) == 91
    for name, reason in {
        "lint_trainproof/malformed.jsonl": r"malformed\.jsonl:2: broken JSON",
        "lint_trainproof/empties.jsonl": r"empties\.jsonl:2: 'text' is empty",
        "lint_fixtures/axolotl_conversation.missingturns.json": r"message 2: empty answer",
        "pubmedqa/pqal_dev.jsonl.gz": r"gz:1: no 'messages' column .*'pmid', 'QUESTION', .*; rename",
    }.items():
        with pytest.raises(errors.UserError, match=reason):
            read(name)
