import json
import re
import subprocess
import sys

import pytest

from ftjax.data import candidates, encode, preferences, preview, report, template
from tests import bases

SCRIPT = bases.ROOT / "scripts" / "data.py"


@pytest.fixture(scope="module")
def script():
    return bases.script("data.py")


@pytest.fixture
def chats(tmp_path):
    turns = [
        {"role": "user", "content": "Is <b> & 漢字🙂 bold?"},
        {"role": "assistant", "content": "It is <b>é</b>🙂."},
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n")
    return path


def test_trained_text_stands_in_brackets_and_nothing_is_lost(tok, chat_of):
    conversation = chat_of("user", "Hi 漢字", "assistant", "It is 🙂.", "user", "é?", "assistant", "4")
    example = encode.encode(conversation, tok, made=template.load("plain", tok), train_on="assistant")
    wanted = "<bos>User: Hi 漢字\nAssistant:[ It is 🙂.<eos>]\nUser: é?\nAssistant:[ 4<eos>]\n"
    assert preview.bracketed(example, tok) == wanted
    assert preview.coloured(example, tok).plain == re.sub(r"[\[\]]", "", wanted)
    spans = preview.coloured(example, tok).spans
    assert [span.style for span in spans] == ["dim", preview.STYLE, "dim", preview.STYLE, "dim"]


def test_the_page_escapes_everything_that_comes_from_the_data(tok, chat_of):
    conversation = chat_of("user", "<script>x</script>", "assistant", "a & b <i>")
    example = encode.encode(conversation, tok, made=template.load("plain", tok), train_on="assistant")
    counts = report.Counts(max_length=None)
    counts.see(len(example.ids), rewritten=0, holds_special=False)
    counts.keep(example.mask)
    page = preview.page([example], tok, title="<file>", summary=counts.done())
    assert "<mark> a &amp; b &lt;i&gt;&lt;eos&gt;</mark>" in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "<script" not in page
    assert "Preview of &lt;file&gt;" in page
    assert not re.search(r"(src|href)=", page)  # self-contained


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        json.dumps({"prompt": "The <b> sky", "chosen": " is blue. It is 4.", "rejected": " is", "margin": 2}) + "\n"
        + json.dumps({"prompt": "What", "chosen": "It is", "rejected": "Itis"}) + "\n"
    )  # fmt: skip
    return path


def test_a_prompt_is_shown_once_with_its_completions_below(tok):
    row = {"prompt": "The sky 漢", "completions": ["字 is", " blue", "🙂"], "ranks": [2, 1, 2]}
    settings = {"max_length": None, "truncation": "error", "equal": "error", "mismatched": False}
    rows = [preferences.from_row(row, "p.jsonl:1")]
    (one,), _ = candidates.encode_preferences(rows, tok, made=None, **settings)
    counts = [len(ids) for ids in one.completions]
    wanted = (
        "prompt:\n<bos>The sky 漢\n"
        f"completion 1; {counts[0]} tokens, {counts[0]} count:\n[字 is<eos>]\n"
        f"completion 2; {counts[1]} tokens, {counts[1]} count; better than 1, 3:\n[ blue<eos>]\n"
        f"completion 3; {counts[2]} tokens, {counts[2]} count:\n[🙂<eos>]"
    )
    assert preview.bracketed(one, tok) == wanted
    assert preview.coloured(one, tok).plain == re.sub(r"[\[\]]", "", wanted)
    assert preview.heading(one) == f"p.jsonl:1: prompt of {len(one.prompt)} tokens, 3 completions"


@pytest.mark.usefixtures("tmp_cache")
def test_preview_knows_a_file_of_preferences_by_its_first_row(script, pairs, model_dir, tmp_path, capsys):
    folder, page = model_dir(), tmp_path / "out.html"
    assert script.main(["preview", str(pairs), "--model", str(folder), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "prompt:\n<bos>The <b> sky\n" in printed
    assert "better than 2; label 1:\n[ is blue. It is 4.<eos>]" in printed
    assert "2 read, 1 kept, 1 dropped (equal completions)" in printed
    assert "<pre>&lt;bos&gt;The &lt;b&gt; sky</pre>" in page.read_text()
    assert script.main(["preview", str(pairs), "--model", str(folder), "--equal", "error"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {pairs}:2: completions 1 and 2 are equal but for white space")
    assert script.main(["preview", str(pairs), "--model", str(folder), "--train-on", "all"]) == 2
    assert capsys.readouterr().err == "error: --train-on all is for supervised training; preferences have none\n"


@pytest.mark.usefixtures("tmp_cache")
def test_preview_prints_rows_and_report_and_writes_the_page(script, chats, model_dir, tmp_path, capsys):
    folder = model_dir()
    page = tmp_path / "out.html"
    code = script.main(["preview", str(chats), "--model", str(folder), "--template", "plain", "--html", str(page)])
    printed = capsys.readouterr().out
    assert code == 0
    assert "[ It is <b>é</b>🙂.<eos>]" in printed
    assert f"{chats}:1: " in printed
    assert "1 read, 1 kept" in printed
    assert "█ 1" in printed
    assert "<mark> It is &lt;b&gt;é&lt;/b&gt;🙂.&lt;eos&gt;</mark>" in page.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--template", "plan"], "no chat template 'plan' (did you mean 'plain'?)"),
        (["--template", "plain", "--max-length", "3", "--truncation", "error"], "tokens, but max_length is 3"),
        (["--html", "chats.jsonl"], "--html chats.jsonl: name a file that ends in .html"),
        (["--rows", "-1"], "--rows -1 must not be negative"),
        ([], "a chat needs a template, and the tokenizer has none"),
    ],
)
@pytest.mark.usefixtures("tmp_cache")
def test_a_mistake_is_one_line_and_status_2(script, chats, model_dir, capsys, change, message):
    before = chats.read_bytes()
    code = script.main(["preview", str(chats), "--model", str(model_dir()), *change])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert chats.read_bytes() == before


def test_debug_shows_the_traceback(script, tmp_path, model_dir):
    from ftjax import errors

    with pytest.raises(errors.UserError, match="no such file"):
        script.main(["preview", str(tmp_path / "none.jsonl"), "--model", str(model_dir()), "--debug"])


def test_the_command_fails_within_seconds_and_without_a_traceback(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{")
    command = [sys.executable, str(SCRIPT), "preview", str(tmp_path / "bad.jsonl"), "--model", str(tmp_path / "modle")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert found.stdout == ""
    assert re.fullmatch(r"error: .*modle: no such file; .* holds bad\.jsonl\n", found.stderr)
