"""`data.py check`: exit statuses, --json, --strict, --fix, --columns, and what must not come out of it."""

import json
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
import pytest

from ftjax.data import check, preferences, records, rows, similarity, versions
from ftjax.data.checks import in_evaluation, system_prompts
from tests import check_cases

ROOT = Path(__file__).resolve().parents[3]


def test_status_is_0_without_errors_1_with_one_and_2_where_nothing_can_be_read(main, written, tmp_path, capsys):
    clean = written(check_cases.MANY, "clean.jsonl")
    assert main(["check", clean]) == 0
    assert "0 errors" in capsys.readouterr().out
    assert main(["check", written([*check_cases.MANY, {"text": ""}], "bad.jsonl")]) == 1
    assert "missing_content" in capsys.readouterr().out
    (tmp_path / "empty.jsonl").write_text("\n\n")
    for name in ("empty.jsonl", "absent.jsonl", "clean.txt"):
        assert main(["check", str(tmp_path / name)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_strict_fails_for_warnings_and_not_for_notes(main, written, capsys):
    notes = written(check_cases.MANY, "notes.jsonl")
    assert main(["check", notes, "--strict"]) == 0
    warned = written([*check_cases.MANY, check_cases.MANY[0]], "warned.jsonl")
    assert main(["check", warned]) == 0
    assert main(["check", warned, "--strict"]) == 1
    assert "duplicate_rows" in capsys.readouterr().out


def test_json_has_rows_findings_and_summary_and_is_all_that_is_printed(main, written, capsys):
    path = written(
        [check_cases.GOOD, check_cases.GOOD, '{"broken', check_cases.chat("Mail?", "To jane.doe@corp-mail.org")]
    )
    assert main(["check", path, "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    told = json.loads(out)
    assert told["rows"] == 4
    by_rule = {finding["rule"]: finding for finding in told["findings"]}
    for finding in told["findings"]:
        assert finding.keys() >= {"rule", "severity", "line", "message", "suggestion"}
    assert by_rule["broken_json"]["severity"] == "error"
    assert by_rule["broken_json"]["line"] == 3
    assert by_rule["duplicate_rows"]["line"] == 2
    assert by_rule["fewer_than_50"]["line"] is None
    assert told["summary"]["readable"] == 3
    assert told["summary"]["errors"] == 1
    assert told["summary"]["not_run"]["in_evaluation"] == "needs --against"
    assert "doe@corp-mail.org" not in out


def test_private_data_never_comes_out_whole_whatever_else_a_row_breaks(written):
    private = (
        "jane.doe@corp-mail.org",
        "+49 30 901820",
        "4539 5787 6362 1486",
        "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    )
    others = [check_cases.chat(text, f"{text} {{{{name}}}}") for text in private] * 2
    path = written([*(check_cases.chat(f"Which is {n}?", text) for n, text in enumerate(private)), *others])
    report = check.run(rows.read(path), progress=lambda _: None)
    rules = ("email_addresses", "phone_numbers", "payment_cards", "secrets")
    told = {finding.rule: finding.message for finding in report.findings if finding.rule in rules}
    assert set(told) == set(rules)
    assert all("****" in message for message in told.values())
    for finding in report.findings:
        assert not any(text in finding.message or text[-6:] in finding.message for text in private)


def test_text_names_file_and_line_shows_five_findings_of_a_rule_and_all_with_all(main, written, capsys):
    path = written([check_cases.chat(f"Who are you, {n}?", f"I am {{{{name}}}} {n}.") for n in range(9)])
    main(["check", path])
    out = capsys.readouterr().out
    assert f"  {path}:1: {{{{name}}}} in an answer" in out
    assert f"{path}:6: {{{{name}}}}" not in out
    assert "... 4 more; --all shows them" in out
    main(["check", path, "--all"])
    assert f"{path}:9: {{{{name}}}}" in capsys.readouterr().out


def test_control_characters_of_the_data_do_not_reach_the_terminal(main, written, capsys):
    key = "role\x1b[2J\ud800"
    main(
        [
            "check",
            written(
                [{"messages": [{key: "user", "content": "Hi"}]}, check_cases.chat("\x1b[31m?", "\x1b[31m{{name}}")]
            ),
        ]
    )
    out = capsys.readouterr().out
    assert "\x1b" not in out
    out.encode()


def test_fix_writes_what_is_certain_beside_and_touches_neither_the_file_nor_a_copy_that_is_there(main, written, capsys):
    bad = [
        check_cases.turns("human", "Where?", "gpt", " At the cafÃ©.\x00 "),
        check_cases.GOOD,
        check_cases.GOOD,
        '{"broken',
        {"text": ""},
    ]
    path = Path(written(bad, "chats.jsonl"))
    before = path.read_bytes()
    assert main(["check", str(path), "--fix"]) == 1
    out = capsys.readouterr().out
    copy = path.with_name("chats.fixed.jsonl")
    assert f"written: {copy} (3 rows" in out
    assert "lines left out, because no row can be read from them: 4" in out
    assert path.read_bytes() == before
    mended = [json.loads(line) for line in copy.read_text(encoding="utf-8").splitlines()]
    assert mended == [check_cases.turns("user", "Where?", "assistant", "At the café."), check_cases.GOOD, {"text": ""}]
    (version,) = versions.history(str(copy))
    assert version.parents == (versions.Parent(str(path), versions.now(str(path))),)
    assert version.rows == 3
    assert main(["check", str(path), "--fix"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_fix_keeps_every_row_of_a_list_on_one_line_but_the_duplicate(main, tmp_path, capsys):
    path = tmp_path / "one.json"
    asked = [*check_cases.MANY[:3], check_cases.MANY[0], *check_cases.MANY[3:5]]
    path.write_text(json.dumps(asked))
    assert main(["check", str(path), "--fix"]) == 0
    assert "(5 rows; rows changed: duplicate_rows 1)" in capsys.readouterr().out
    copy = (tmp_path / "one.fixed.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in copy] == check_cases.MANY[:5]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"text": "a"}, {"text": "a"},\n{"text": },\n{"text": "b"}]'),
        ("a.csv", 'text\na\na\n"b"x\nc\n'),
        ("b.csv", "text,text\na,b\na,b\n"),
        ("c.csv", "text\na\na\ncaf\xe9\n"),
    ],
)
def test_fix_writes_no_copy_of_a_file_that_cannot_be_read_to_its_end(name, text, main, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    assert main(["check", str(path), "--fix"]) > 0
    out = capsys.readouterr().out
    assert "nothing behind it can be read" in out
    assert "no copy written, which would lack all that stands behind this: " in out
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_fix_of_a_labelled_csv_writes_labels_that_training_takes(main, tmp_path, capsys):
    path = tmp_path / "kto.csv"
    rows_ = [f"Is {n} even?,{'Yes' if n % 2 == 0 else 'No'}.\x00,{n % 2 == 0}" for n in range(4)]
    path.write_text("\n".join(["prompt,completion,label", *rows_]))
    assert main(["check", str(path), "--fix"]) == 0, capsys.readouterr().out
    copy = tmp_path / "kto.fixed.jsonl"
    assert [row["label"] for row in map(json.loads, copy.read_text().splitlines())] == [True, False, True, False]
    assert [one.labels for one in preferences.read(str(copy))] == [(1.0,), (0.0,), (1.0,), (0.0,)]


def test_fix_of_a_file_without_certain_repairs_writes_nothing(main, written, tmp_path, capsys):
    assert main(["check", written(check_cases.MANY, "chats.jsonl"), "--fix"]) == 0
    assert "nothing to fix" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["chats.jsonl"]


def test_columns_renames_what_training_does_not_know(main, written, capsys):
    path = written([{"ask": f"How much is {n}?", "reply": str(n), "prompt": "x"} for n in range(3)])
    assert main(["check", path]) == 1
    assert "missing_messages_list (1)" in capsys.readouterr().out
    assert main(["check", path, "--columns", "prompt=ask,completion=reply"]) == 2
    way = "columns old_prompt=prompt,prompt=ask"
    assert f"there is a column 'prompt' already, which would be lost; give it another name too, as {way}" in (
        capsys.readouterr().err
    )
    assert main(["check", path, "--columns", "old=prompt,prompt=ask,completion=reply"]) == 0
    data = rows.read(path, columns={"old": "prompt", "prompt": "ask", "completion": "reply"})
    assert data.rows[0].record == records.Completion("How much is 0?", "0", f"{path}:1", {"old": "x"})
    assert main(["check", path, "--columns", "ask"]) == 2
    assert "must be NAME=COLUMN" in capsys.readouterr().err


def test_a_model_counts_tokens_as_training_does_and_its_context_is_the_limit(main, written, capsys, model_dir, tok):
    from ftjax.data import encode, template, tokens_of_rows

    path = written([check_cases.GOOD, check_cases.chat("Tell me.", check_cases.LONG * 9)])
    plain = (ROOT / "ftjax/data/templates/plain.jinja").read_text()
    folder = model_dir(chat_template=plain)
    (folder / "config.json").write_text('{"max_position_embeddings": 200}')
    assert main(["check", path, "--model", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kept = records.read(path)
    lengths = [len(encode.encode(one, tok, made=template.load("plain", tok), train_on="assistant").ids) for one in kept]
    assert told["summary"]["tokens"]["longest"] == max(lengths)
    assert told["summary"]["tokens"]["limit"] == 200
    long = [finding for finding in told["findings"] if finding["rule"] == "longer_than_context"]
    assert [finding["line"] for finding in long] == [2]
    assert f"{max(lengths):,} tokens, but 200 fit" == long[0]["message"]
    assert main(["check", path, "--max-length", "8"]) == 2
    assert "needs --model" in capsys.readouterr().err
    assert main(["check", path, "--model", str(folder), "--max-length", "1"]) == 2
    (folder / "config.json").write_text("{}")
    assert tokens_of_rows.context(str(folder)) is None
    capsys.readouterr()
    main(["check", path, "--model", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["summary"]["not_run"]["longer_than_context"] == "needs --max-length"


def test_a_system_prompt_that_is_nearly_the_usual_one_is_found_and_one_of_its_own_is_not(written):
    say = lambda system, n: check_cases.turns("system", system, "user", f"Hi {n}", "assistant", f"Hello {n}.")
    usual, typo, other = "You are a helpful assistant.", "You are a helpfull assistant.", "You are a pirate of 1700."
    found = lambda *systems: [
        (one.line, one.message)
        for one in system_prompts.check(rows.read(str(written([say(s, n) for n, s in enumerate(systems)]))))
    ]
    said = "nearly the system prompt of 20 other rows, but for 'helpfull assistant.'"
    assert found(*[usual] * 20, typo, other, typo) == [(21, said), (23, said)]
    assert found(*[usual] * 9, typo) == []  # too few to call it the usual one
    assert found(*[usual] * 20, *[typo] * 3) == []  # too many to be a slip
    assert found(*[f"You are a helpful assistant. It is day {n} of the year." for n in range(60)]) == []


def test_near_duplicates_are_found_whatever_lies_between_and_far_texts_never():
    words = check_cases.LONG.split()
    texts = [check_cases.LONG, *(check_cases.OTHER[n:] for n in range(0, 120, 60)), " ".join([*words[:-1], "brook."])]
    texts += ["", "!?", "!?", check_cases.LONG.upper()]
    found = {one.row: one for one in similarity.near(texts)}
    assert found.keys() == {3, 7}
    assert found[3].like == 0
    assert found[3].jaccard == similarity.exact(texts[0], texts[3])
    assert found[7].jaccard == 1.0


def test_every_row_that_is_nearly_one_of_the_evaluation_is_found_also_where_rows_are_nearer_to_each_other(written):
    words = check_cases.LONG.split()
    variant = lambda n: " ".join([*words[:-1], *["more"] * n])
    ours = written([{"text": variant(n)} for n in (1, 1, 2, 2)], "ours.jsonl")
    data = rows.read(ours)
    data.against = [rows.read(written([{"text": check_cases.OTHER}, {"text": check_cases.LONG}], "test.jsonl"))]
    found = {one.line: one.message for one in in_evaluation.check(data)}
    assert found.keys() == {1, 2, 3, 4}
    assert all("is nearly (Jaccard 0.9" in said and "test.jsonl:2" in said for said in found.values())


def test_nearest_texts_are_those_that_counting_every_pair_finds():
    draw = np.random.default_rng(0)
    words = [f"w{n}" for n in range(60)]
    base = [draw.choice(words, 30).tolist() for _ in range(6)]
    mutated = lambda: [w if draw.random() > 0.04 else f"own{draw.integers(99)}" for w in base[draw.integers(6)]]
    among, texts = ([" ".join(mutated()) for _ in range(count)] for count in (40, 60))
    texts += ["", "w1", among[0].upper()]
    expected = []
    for n, text in enumerate(texts):
        every = [similarity.exact(text, other) for other in among]
        if max(every) >= similarity.JACCARD:
            expected.append((n, every.index(max(every)), max(every)))
    assert [tuple(one) for one in similarity.nearest(texts, among)] == expected
    assert 20 < len(expected) < 60


def test_texts_without_spaces_between_words_are_compared_by_their_characters():
    first = "".join(chr(0x4E00 + n) for n in range(50))
    texts = [first, f"{first[:-1]}好", "".join(chr(0x4E00 + 7 * n) for n in range(50)), "好"]
    assert [(one.row, one.like) for one in similarity.near(texts)] == [(1, 0)]
    assert similarity.groups(texts).tolist() == [0, 0, 2, 3]
    assert similarity.normal("日本、 OK-go!") == "日 本 ok go"


LENGTH = 100_000
LONG_TEXTS = {
    "letters": "x" * LENGTH, "letters and a digit": "x" * LENGTH + "1", "hex": "0123456789abcdef" * (LENGTH // 16),
    "chinese": "".join(chr(0x4E00 + n % 20_000) for n in range(LENGTH)), "line ends": "a" + "\n" * LENGTH + "a",
    "at signs": "a@" * (LENGTH // 2), "colons": "://" + "a:" * (LENGTH // 2), "numbers": "+1 " * (LENGTH // 3),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_long_text_of_any_kind_is_checked_in_seconds(name):
    asked = [check_cases.chat("What is it?", LONG_TEXTS[name]), *check_cases.MANY[:5]]
    data = rows.of_values("a.jsonl", [*enumerate(asked, start=1)])
    began = time.process_time()
    check.run(data, progress=lambda _: None)
    assert time.process_time() - began < 10  # at most 3 s where it was written, most of it imports; minutes before


def test_every_verb_has_help_and_a_wrong_one_names_the_known(main, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["check", "--help"])
    assert ended.value.code == 0
    assert "--strict" in capsys.readouterr().out
    assert main(["chekc", "x.jsonl"]) == 2
    assert "check" in capsys.readouterr().err


def test_check_starts_without_jax():
    slow = "{'jax', 'sklearn', 'transformers', 'ftfy', 'phonenumbers'}"
    code = f"import sys; from ftjax.data import check; check.rules(); assert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_texts_of_a_row_are_what_is_asked_what_comes_before_and_what_is_trained_on():
    said = check_cases.turns(
        "system", "Be kind.", "user", "Hi", "assistant", "Hello.", "user", "Bye", "assistant", "Bye."
    )
    tool = check_cases.called(check_cases.TOLD, check_cases.SAID)
    values = [said, tool, check_cases.turns("system", "Be kind.", "assistant", "Hello."), {"text": "Hello."}]
    chat, called, silent, text = rows.of_values("a", list(enumerate(values, start=1))).samples
    assert (chat.system, chat.asked, chat.answers, chat.turns) == ("Be kind.", "Bye", ("Hello.", "Bye."), 4)
    assert chat.opening == "system: Be kind.\nuser: Hi"
    assert chat.context == "system: Be kind.\nuser: Hi\nassistant: Hello.\nuser: Bye"
    assert called.asked == "Will it rain in Glen?"
    assert "weather" in called.context
    assert (silent.asked, silent.context) == ("", "Be kind.")
    assert (text.asked, text.opening, text.answers) == ("", "", ("Hello.",))
    pairs = [
        check_cases.pair("Hi", "Hello.", "No."),
        {"prompt": "Hi", "completions": ["a", "b", "c"], "ranks": [2, 1, 1]},
        {"prompt": "Hi", "completion": "No.", "label": False},
    ]
    data = rows.of_values("p", list(enumerate(pairs, start=1)))
    assert data.of_preferences
    assert [sample.answers for sample in data.samples] == [("Hello.",), ("b", "c"), ("No.",)]
    assert [(pair.line, pair.better, pair.worse) for pair in data.pairs] == [
        (1, "Hello.", "No."),
        (2, "b", "a"),
        (2, "c", "a"),
    ]
