import json

import pytest

from ftjax import errors
from ftjax.data import chat, records, template

THINK = "<think>\nhm\n</think>\n\nFour."


def spans(made, conversation, *, last_only=False):
    shown = chat.render(made, conversation, last_only=last_only)
    return [shown.text[answer.start : answer.end] for answer in shown.answers]


def custom(text, eos="<eos>"):
    return template.Template(name="mine", text=text, bos_token="<bos>", eos_token=eos)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("llama3", "Yo<|eot_id|>", "4<|eot_id|>"),
        ("llama3_1", "Yo<|eot_id|>", "4<|eot_id|>"),
        ("gemma", "Yo<end_of_turn>\n", "4<end_of_turn>\n"),
        ("qwen2_5", " Yo <|im_end|>\n", "4<|im_end|>\n"),
        ("qwen3", " Yo <|im_end|>\n", "<think>\n\n</think>\n\n4<|im_end|>\n"),
        ("qwen3_training", "<think>\n\n</think>\n\n Yo <|im_end|>\n", "<think>\n\n</think>\n\n4<|im_end|>\n"),
        ("phi3", " Yo <|end|>\n", "4<|end|>\n<|endoftext|>"),
    ],
)
def test_the_answers_of_stock_templates_are_content_and_end_of_turn(name, first, second, named, chat_of):
    conversation = chat_of("user", "Hi", "assistant", " Yo ", "user", "2+2?", "assistant", "4")
    assert spans(named(name), conversation) == [first, second]
    assert spans(named(name), conversation, last_only=True) == [second]


def test_prefix_spans_agree_with_the_generation_blocks_of_every_published_rendering(shared_data):
    """Stock and training twin train the same content and end of turn: the twin's own spans, but for white space."""
    folder = shared_data / "chat_templates"
    chats = json.loads((folder / "conversations.json").read_text())
    rows = [json.loads(line) for line in (folder / "rendered.jsonl").read_text().splitlines()]
    compared = 0
    for row in rows:
        if "assistant_spans" not in row or row["add_generation_prompt"] or row["conversation"] == "prompt_only":
            continue
        turns = tuple(records.Message(**message) for message in chats[row["conversation"]])
        conversation = records.Conversation(messages=turns, tools=(), where="a:1", extra={})
        answers = {}
        for name in (row["template"], row["template"].removesuffix("_training")):
            text = (folder / f"{name}.jinja").read_text()
            answers[name] = spans(template.Template(name, text, row["bos_token"], row["eos_token"]), conversation)
        twin, stock = answers.values()
        merged = [row["text"][start:end] for start, end in chat._merged([tuple(s) for s in row["assistant_spans"]])]
        assert [text.lstrip("\n") for text in twin] == [text.lstrip("\n") for text in merged]
        bare = [[text.removeprefix("<think>\n\n</think>\n\n") for text in found] for found in (twin, stock)]
        assert bare[0] == bare[1]
        compared += 1
    assert compared == 36  # 4 templates x 8 chats, and the 4 that Gemma's does not refuse


def test_a_turn_that_the_template_shows_without_its_scaffold_is_counted(named, chat_of):
    conversation = chat_of("user", "a", "assistant", "b", "user", "c", "assistant", "d")
    assert chat.render(named("qwen3"), conversation, last_only=False).rewritten == 1
    assert chat.render(named("qwen3"), conversation, last_only=True).rewritten == 0
    assert chat.render(named("qwen3_training"), conversation, last_only=False).rewritten == 0


def test_thinking_that_later_turns_make_the_template_drop_is_refused(named, chat_of):
    conversation = chat_of("user", "2+2?", "assistant", THINK, "user", "Sure?", "assistant", THINK)
    with pytest.raises(
        errors.UserError,
        match=r":7: message 2: chat template qwen3 writes this answer differently .*train_on='last_assistant'",
    ):
        spans(named("qwen3"), conversation)
    assert spans(named("qwen3"), conversation, last_only=True) == [f"{THINK}<|im_end|>\n"]
    assert spans(named("qwen3_training"), conversation) == [f"{THINK}<|im_end|>\n"] * 2


def test_a_tool_turn_that_follows_a_call_is_no_reason_to_refuse(named):
    call = {"function": {"name": "find", "arguments": {"x": 1}}}
    turns = [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "[1]"},
        {"role": "assistant", "content": "One."},
    ]
    conversation = records.from_row({"messages": turns}, "a:1")
    called, said = spans(named("qwen3"), conversation)
    assert called == '<tool_call>\n{"name": "find", "arguments": {"x": 1}}\n</tool_call><|im_end|>\n'
    assert said == "<think>\n\n</think>\n\nOne.<|im_end|>\n"


def test_a_chat_that_begins_with_the_assistant_is_refused_where_prefixes_cannot_be_shown(named, chat_of):
    conversation = chat_of("assistant", "Hello", "user", "Hi", "assistant", "Bye")
    with pytest.raises(errors.UserError, match=r"chats\.jsonl:7: message 1: chat template llama3 .*generation prompt"):
        spans(named("llama3"), conversation)
    with pytest.raises(
        errors.UserError, match=r":7: message 1: .*cannot show the chat up to this answer .*user message"
    ):
        spans(named("qwen2_5"), conversation)


def test_generation_blocks_decide_where_prefixes_cannot_be_shown(named, chat_of):
    conversation = chat_of("assistant", "Hello", "user", "Hi", "assistant", "Bye")
    assert spans(named("llama3_training"), conversation) == ["Hello<|eot_id|>", "Bye<|eot_id|>"]


def test_what_the_template_raises_is_told_with_the_line(named, chat_of):
    with pytest.raises(
        errors.UserError, match=r"chats\.jsonl:7: chat template gemma refuses this chat: System role not"
    ):
        spans(named("gemma"), chat_of("system", "Be kind", "user", "Hi", "assistant", "Yo"))


def test_answers_of_weight_zero_are_context(named):
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "weight": 1},
    ]
    assert spans(named("llama3"), records.from_row({"messages": turns}, "a:1")) == ["d<|eot_id|>"]
    turns[3]["weight"] = 0
    with pytest.raises(errors.UserError, match=r"a:1: every assistant message has weight 0, so no token is trained on"):
        spans(named("llama3"), records.from_row({"messages": turns}, "a:1"))


HEADERS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def test_a_template_without_generation_prompt_that_would_train_the_role_header_is_refused(chat_of):
    with pytest.raises(
        errors.UserError, match=r"ignores add_generation_prompt, so its role header '<\|im_start\|>assistant'"
    ):
        spans(custom(HEADERS), chat_of("user", "Hi", "assistant", "Yo"))


def test_a_template_whose_answer_follows_the_question_directly_needs_no_generation_prompt(chat_of):
    turn = "'[INST] ' + m.content + ' [/INST]' if m.role == 'user' else ' ' + m.content + eos_token"
    text = "{% for m in messages %}{{ " + turn + " }}{% endfor %}"
    conversation = chat_of("user", "Hi", "assistant", "Yo", "user", "4?", "assistant", "5")
    assert spans(custom(text), conversation) == [" Yo<eos>", " 5<eos>"]


def test_a_template_whose_generation_prompt_is_no_prefix_of_the_turn_is_refused(chat_of):
    text = HEADERS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    with pytest.raises(errors.UserError, match=r"does not begin this answer with its own generation prompt .*'<think>"):
        spans(custom(text), chat_of("user", "Hi", "assistant", "Yo"))


def test_a_message_that_the_template_leaves_out_is_refused(named, chat_of):
    conversation = chat_of("user", "Hi", "assistant", "Yo", "tool", "[1]", "assistant", "One")
    with pytest.raises(
        errors.UserError, match=r":7: message 3: chat template phi3 leaves out this message of the tool"
    ):
        spans(named("phi3"), conversation)


def test_tools_and_calls_that_the_template_does_not_know_are_refused(named, chat_of):
    with pytest.raises(errors.UserError, match=r"chat template llama3 does not show 'tools'"):
        spans(named("llama3"), chat_of("user", "Hi", "assistant", "Yo", tools=[{"name": "find"}]))
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [{"name": "find"}]}]
    with pytest.raises(errors.UserError, match=r"message 2: chat template llama3 does not write the tool call 'find'"):
        spans(named("llama3"), records.from_row({"messages": turns}, "a:1"))


def test_variables_of_a_row_reach_the_template(named, chat_of):
    conversation = chat_of("user", "Hi", "assistant", "Yo", chat_template_kwargs={"enable_thinking": False})
    assert chat.prompt(named("qwen3"), conversation).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert spans(named("qwen3"), conversation) == ["Yo<|im_end|>\n"]


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("llama3", ["<eos>", "<|eot_id|>"]),
        ("qwen3", ["<eos>", "<|im_end|>"]),
        ("gemma", ["<eos>", "<end_of_turn>"]),
        ("phi3", ["<eos>", "<|end|>", "<|endoftext|>"]),
    ],
)
def test_generation_stops_at_the_end_token_and_at_what_ends_a_turn(name, stops, named, tok):
    assert [tok.token(i) for i in chat.stop_ids(tok, named(name))] == stops
