import json
import subprocess
import sys

import pytest

from ftjax import errors
from ftjax.data import template

TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "x": "<ü>"}}}]


def goldens(shared_data):
    folder = shared_data / "chat_templates"
    chats = json.loads((folder / "conversations.json").read_text())
    rows = [json.loads(line) for line in (folder / "rendered.jsonl").read_text().splitlines()]
    for row in rows:
        text = (folder / f"{row['template']}.jinja").read_text()
        made = template.Template(row["template"], text, row["bos_token"], row["eos_token"])
        yield row, made, chats[row["conversation"]]


def rendered(made, messages, *, prompt=False, tools=(), **variables):
    return template.render(made, messages, tools=tools, add_generation_prompt=prompt, variables=variables)


def test_all_published_renderings_and_spans_are_reproduced(shared_data):
    counts = {"text": 0, "spans": 0, "error": 0}
    for row, made, messages in goldens(shared_data):
        if "error" in row:
            with pytest.raises(template.RenderError):
                rendered(made, messages, prompt=row["add_generation_prompt"])
            counts["error"] += 1
            continue
        found = rendered(made, messages, prompt=row["add_generation_prompt"])
        assert found.text == row["text"]
        counts["text"] += 1
        if "assistant_spans" in row:
            assert [list(span) for span in found.generation] == row["assistant_spans"]
            counts["spans"] += 1
    assert counts == {"text": 113, "spans": 51, "error": 8}


def test_rendering_with_tools_equals_that_of_transformers(shared_data):
    from transformers.utils import chat_template_utils

    call = {"type": "function", "function": {"name": "find", "arguments": {"what": "é<&>"}}}
    messages = [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "[1]"},
        {"role": "assistant", "content": "One."},
    ]
    for name in ("qwen3", "qwen3_training", "qwen2_5", "qwen2_5_training", "llama3_1"):
        text = (shared_data / "chat_templates" / f"{name}.jinja").read_text()
        made = template.Template(name, text, "<bos>", "<eos>")
        variables = {"date_string": "1 May 2026", "enable_thinking": False}
        theirs, spans = chat_template_utils.render_jinja_template(
            [messages],
            tools=TOOLS,
            chat_template=text,
            return_assistant_tokens_mask=made.marks_answers,
            add_generation_prompt=True,
            bos_token="<bos>",
            eos_token="<eos>",
            **variables,
        )
        ours = rendered(made, messages, prompt=True, tools=TOOLS, **variables)
        assert ours.text == theirs[0]
        assert list(ours.generation) == (spans[0] if made.marks_answers else [])


def test_blocks_are_trimmed_and_loops_controlled_as_in_transformers():
    from transformers.utils import chat_template_utils

    loop = "  {% for m in messages %}\n  {% if loop.last %}\n {% break %}{% endif %}\n {{ m.content }}\n {% endfor %}"
    text = loop + "\nend\n"
    messages = [{"role": "user", "content": " a\n"}, {"role": "user", "content": "b"}]
    theirs, _ = chat_template_utils.render_jinja_template([messages], chat_template=text)
    assert rendered(template.Template("mine", text, "", ""), messages).text == theirs[0]


def test_the_date_in_a_template_is_always_the_same(shared_data):
    text = (shared_data / "chat_templates" / "llama3_1.jinja").read_text()
    made = template.Template("llama3_1", text + "{{ strftime_now('%Y-%m-%d') }}", "", "")
    assert rendered(made, [{"role": "user", "content": "x"}]).text.endswith("2024-07-26")


@pytest.mark.parametrize("name", template.shipped())
def test_a_shipped_template_ends_answers_with_a_stop_token_and_marks_them(name, make_tok):
    made = template.load(name, make_tok(bos="<bos>", eos="<eos>"))
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo"},
        {"role": "user", "content": "?"},
    ]
    found = rendered(made, messages)
    ((start, end),) = found.generation
    assert found.text[start:end].strip() in ("Yo<eos>", "Yo<|im_end|>")
    assert found.text.count("<bos>") == 1
    assert rendered(made, messages[:1], prompt=True).text == found.text[:start]


@pytest.mark.parametrize("name", template.shipped())
def test_a_shipped_template_shows_tools_and_calls(name, make_tok):
    made = template.load(name, make_tok())
    call = {"type": "function", "function": {"name": "find", "arguments": {"x": 1}}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [call, call]}]
    text = rendered(made, messages, tools=TOOLS).text
    assert text.count('<tool_call>{"name": "find", "arguments": {"x": 1}}</tool_call>') == 2
    assert json.dumps(TOOLS, ensure_ascii=False) in text


def test_an_unknown_template_is_refused_with_the_one_that_was_meant(tok):
    with pytest.raises(
        errors.UserError, match=r"no chat template 'chatnl' \(did you mean 'chatml'\?\); shipped: chatml, "
    ):
        template.load("chatnl", tok)
    with pytest.raises(errors.UserError, match=r"the tokenizer has no chat template of its own; name one .*chatml"):
        template.load(None, tok)
    with pytest.raises(errors.UserError, match=r"nowhere\.jinja: no such file"):
        template.load("nowhere.jinja", tok)


def test_a_template_file_with_broken_jinja_is_refused_with_its_line(tok, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{{ bos_token }}\n{% for message in messages %}")
    with pytest.raises(errors.UserError, match=r"chat template .*mine\.jinja: line 2: Unexpected end of template"):
        template.load(str(path), tok)


def test_a_template_cannot_reach_the_machine(tok, tmp_path):
    path = tmp_path / "evil.jinja"
    path.write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(template.RenderError, match="unsafe"):
        rendered(template.load(str(path), tok), [])


def test_the_data_package_imports_no_jax_torch_or_transformers():
    modules = "records, encode, pack, batch, loader, preview, tokenizer, chat"
    heavy = "{'jax', 'torch', 'transformers', 'grain', 'datasets', 'pyarrow'}"
    code = f"import sys; from ftjax.data import {modules}; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
