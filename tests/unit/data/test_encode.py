import dataclasses
import json
import os

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from ftjax import errors
from ftjax.data import cache, encode, records, template, tokenizer

SETTINGS = {"template_name": None, "max_length": None, "truncation": "error", "train_on": "assistant"}
WORDS = strategies.text(strategies.sampled_from("abc 4.?\n\té漢🙂"), min_size=1, max_size=12).filter(
    lambda text: text.strip()
)


def shown(example, tok):
    """The tokens of a row; trained ones in brackets."""
    pairs = zip(example.ids.tolist(), example.mask.tolist(), strict=True)
    return [f"[{tok.decode([i], skip_special=False)}]" if m else tok.decode([i], skip_special=False) for i, m in pairs]


def trained(example, tok):
    return tok.decode(example.ids[example.mask == 1], skip_special=False)


def from_rows(rows, tok, made=None, **settings):
    found = [records.from_row(row, f"a.jsonl:{n}") for n, row in enumerate(rows, start=1)]
    keywords = {"max_length": None, "truncation": "error", "train_on": "assistant", **settings}
    return encode.encode_records(found, tok, made=made, **keywords)


def test_a_small_chat_gives_these_tokens_and_this_mask(tok, chat_of):
    conversation = chat_of("user", "Hello", "assistant", "It is 4.")
    example = encode.encode(conversation, tok, made=template.load("chatml", tok), train_on="assistant")
    context = ["<bos>", "<|im_start|>", "user", "\n", "Hello", "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"]
    assert shown(example, tok) == [*context, "[It]", "[ is]", "[ 4]", "[.]", "[<|im_end|>]", "\n"]
    assert (example.ids.dtype, example.mask.dtype, example.where) == (np.int32, np.uint8, "chats.jsonl:7")


FAMILIES = ["llama3", "llama3_1", "gemma", "qwen2_5", "qwen2_5_training", "qwen3", "qwen3_training", "phi3_training"]


@pytest.mark.parametrize("name", [*FAMILIES, *template.shipped()])
@hypothesis.settings(
    max_examples=15, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(WORDS, WORDS, WORDS, WORDS)
def test_rows_of_any_template_keep_the_promises(name, request, make_tok, chat_of, a, b, c, d):
    """One BOS; training starts from the very tokens of the prompt; each answer is trained through its stop token."""
    made = request.getfixturevalue("named")(name) if name in FAMILIES else None
    tok = make_tok(bos=(made.bos_token or None) if made else "<bos>", eos=made.eos_token if made else "<eos>")
    made = made or template.load(name, tok)
    conversation = chat_of("user", a, "assistant", b, "user", c, "assistant", d)
    example = encode.encode(conversation, tok, made=made, train_on="assistant")
    ids, mask = example.ids.tolist(), example.mask.tolist()
    if tok.bos_id is not None:
        assert (ids[0], ids.count(tok.bos_id)) == (tok.bos_id, 1)
    asked = encode.prompt_ids(conversation.messages[:1], tok, made=made, tools=())
    assert ids[: len(asked)] == asked
    assert mask[: len(asked)] == [0] * len(asked)
    assert mask[len(asked)] == 1
    edges = np.flatnonzero(np.diff([0, *mask, 0]))
    answers = [ids[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    assert len(answers) == 2
    for answer, content in zip(answers, (b, d), strict=True):
        assert answer[-1] in tok.special_ids
        text = tok.decode(answer, skip_special=True)
        assert text.removeprefix("<think>\n\n</think>\n\n").strip() == content.strip()


def test_a_token_never_straddles_the_start_of_an_answer(tok, named, chat_of):
    newline, double = tok.encode("\n").ids, tok.encode("\n\n").ids
    assert (len(newline), len(double)) == (1, 1)  # the tokenizer would merge them
    example = encode.encode(
        chat_of("user", "Hi", "assistant", "\nIt"), tok, made=named("qwen2_5"), train_on="assistant"
    )
    first = int(np.argmax(example.mask))
    assert example.ids[first - 1 : first + 1].tolist() == [newline[0], newline[0]]
    example = encode.encode(records.Completion("The sky ", "is blue.", "a:1", {}), tok, made=None, train_on="assistant")
    assert trained(example, tok) == "is blue.<eos>"


def test_a_completion_goes_on_without_the_space_that_sentencepiece_puts_before_a_text(shared_data):
    stories = tokenizer.load(shared_data / "stories260k_hf")
    examples, _ = from_rows([{"prompt": "Once up", "completion": "on a time"}], stories)
    assert stories.decode(examples[0].ids, skip_special=True) == "Once upon a time"
    assert trained(examples[0], stories) == "on a time</s>"


def test_completions_train_the_completion_and_an_end_token(tok):
    examples, _ = from_rows([{"prompt": "The sky", "completion": " is blue."}], tok)
    assert shown(examples[0], tok)[:3] == ["<bos>", "The", " sky"]
    assert trained(examples[0], tok) == " is blue.<eos>"
    closed, _ = from_rows([{"prompt": "The sky", "completion": " is blue.<eos>"}], tok)
    assert closed[0].ids.tolist() == examples[0].ids.tolist()


def test_plain_text_is_trained_from_the_first_word_to_the_end_token(tok, make_tok):
    examples, _ = from_rows([{"text": "The sky"}], tok)
    assert shown(examples[0], tok) == ["<bos>", "[The]", "[ sky]", "[<eos>]"]
    without = make_tok(bos=None)
    examples, _ = from_rows([{"text": "The sky"}], without)
    assert shown(examples[0], without) == ["The", "[ sky]", "[<eos>]"]


def test_train_on_picks_answers_the_last_answer_or_everything(tok, chat_of):
    conversation = chat_of("user", "Hello", "assistant", "It", "user", "you", "assistant", "is")
    made = template.load("chatml", tok)
    found = {choice: encode.encode(conversation, tok, made=made, train_on=choice) for choice in encode.TRAIN_ON}
    assert trained(found["assistant"], tok) == "It<|im_end|>is<|im_end|>"
    assert trained(found["last_assistant"], tok) == "is<|im_end|>"
    assert found["all"].mask.tolist() == [0] + [1] * (len(found["all"].ids) - 1)
    assert found["all"].ids.tolist() == found["assistant"].ids.tolist()


def test_an_answer_without_a_stop_token_gets_one_only_at_the_end_of_a_chat(tok, chat_of):
    text = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    made = template.Template("mine", text + "{% if add_generation_prompt %}assistant: {% endif %}", "", "<eos>")
    example = encode.encode(chat_of("user", "Hi", "assistant", "It is."), tok, made=made, train_on="assistant")
    assert trained(example, tok) == "It is.<eos>"
    two = chat_of("user", "Hi", "assistant", "It is.", "user", "And?", "assistant", "Yes")
    with pytest.raises(
        errors.UserError, match=r":7: message 2: chat template mine ends this answer \('It is\.'\) without a"
    ):
        encode.encode(two, tok, made=made, train_on="assistant")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("{% generation %}bot: {{ m.content + eos_token }}{% endgeneration %}", r"block includes 'bot: It<eos>"),
        ("bot: {% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}", r"block leaves out '<eos>'"),
    ],
)
def test_generation_blocks_that_disagree_with_the_generation_prompt_are_refused(answer, message, tok, chat_of):
    turn = "{% if m.role == 'user' %}{{ m.content }}{% else %}" + answer + "{% endif %}"
    text = "{% for m in messages %}" + turn + "{% endfor %}{% if add_generation_prompt %}{{ 'bot: ' }}{% endif %}"
    made = template.Template("mine", text, "", "<eos>")
    with pytest.raises(errors.UserError, match=rf"chats\.jsonl:7: chat template mine: .*{message}"):
        encode.encode(chat_of("user", "Hi", "assistant", "It"), tok, made=made, train_on="assistant")


def test_a_template_whose_end_of_turn_is_no_token_is_refused(shared_data):
    gpt2 = tokenizer.load(shared_data / "tokenizer_gpt2")
    with pytest.raises(
        errors.UserError, match=r"chatml ends an answer with '<\|im_end\|>', which is no token of this .*plain"
    ):
        from_rows([{"text": "a"}], gpt2, template.load("chatml", gpt2))


def test_two_begin_tokens_are_refused(tok):
    with pytest.raises(errors.UserError, match=r"a\.jsonl:1: the row begins with '<bos>' twice"):
        from_rows([{"text": "<bos><bos>Hello"}], tok)


def test_a_row_without_a_trained_token_is_refused_with_its_line(make_tok):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
    tok = make_tok()
    with pytest.raises(errors.UserError, match=r"a\.jsonl:2: every assistant message has weight 0"):
        from_rows([{"text": "x"}, row], tok, template.load("chatml", tok))


def test_a_chat_for_a_tokenizer_without_template_is_refused(tok, chat_of):
    with pytest.raises(
        errors.UserError, match=r"chats\.jsonl:7: a chat needs a template, and the tokenizer has none; name"
    ):
        encode.encode(chat_of("user", "a", "assistant", "b"), tok, made=None, train_on="assistant")


def test_truncation_drops_cuts_or_refuses_and_counts_each(tok):
    rows = [
        {"prompt": "The", "completion": " sky"},  # 4 tokens with <bos> and <eos>
        {"prompt": "The", "completion": " sky is blue."},  # 7
        {"prompt": "The sky is blue. The sky is blue.", "completion": " The"},  # prompt alone is too long
    ]
    with pytest.raises(
        errors.UserError, match=r"a\.jsonl:2: 7 tokens, but max_length is 5; raise it, or set truncation to"
    ):
        from_rows(rows, tok, max_length=5)
    kept, report = from_rows(rows, tok, max_length=5, truncation="drop")
    assert [example.where for example in kept] == ["a.jsonl:1"]
    assert (report.rows, report.kept, report.dropped, report.truncated, report.emptied) == (3, 1, 2, 0, 0)
    kept, report = from_rows(rows, tok, max_length=5, truncation="truncate")
    assert [len(example.ids) for example in kept] == [4, 5]
    assert trained(kept[1], tok) == " sky is blue"
    assert (report.kept, report.dropped, report.truncated, report.emptied) == (2, 0, 1, 1)
    assert (report.tokens, report.trained_tokens) == (9, 5)
    with pytest.raises(
        errors.UserError, match=r"a\.jsonl: none of 1 rows is left within max_length 5 \(1 too long, 0 cut"
    ):
        from_rows(rows[1:2], tok, max_length=5, truncation="drop")


def test_the_report_tells_lengths_in_full_and_draws_every_row(tok):
    rows = [{"text": "The sky " * n} for n in (1, 1, 2, 40)]
    kept, full = from_rows(rows, tok)
    lengths = [len(example.ids) for example in kept]
    _, report = from_rows(rows, tok, max_length=20, truncation="drop")
    assert (report.shortest, report.longest, report.mean) == (min(lengths), max(lengths), float(np.mean(lengths)))
    assert report.percentiles == {"p50": sorted(lengths)[2], "p90": lengths[3], "p95": lengths[3], "p99": lengths[3]}
    assert sum(count for *_, count in report.histogram) == 4
    assert all(sum(a <= n <= b for n in lengths) == count for a, b, count in report.histogram)
    assert report.histogram == full.histogram
    text = report.as_text()
    assert "4 read, 3 kept, 1 dropped (longer than 20)" in text
    assert "> max_length" in text.splitlines()[-1]


def test_text_that_reads_as_a_special_token_is_counted(tok):
    _, report = from_rows([{"text": "a <|im_end|> b"}, {"text": "plain"}], tok)
    assert report.special_in_text == 1
    assert "1 rows hold text that the tokenizer reads as a special token" in report.as_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"truncation": "trunc"}, r"truncation='trunc' \(did you mean 'truncate'\?\); known: drop, truncate, error"),
        ({"train_on": "asistant"}, r"train_on='asistant' \(did you mean 'assistant'\?\)"),
        ({"max_length": 1}, r"max_length=1 must be at least 2"),
        ({"template_name": "chatnl"}, r"no chat template 'chatnl'"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, message, tok):
    with pytest.raises(errors.UserError, match=message):
        encode.encode_file("nowhere.jsonl", tok, **{**SETTINGS, **settings})


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    turns = [[{"role": "user", "content": "What?"}, {"role": "assistant", "content": "sky " * n}] for n in (1, 5, 3)]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    return path


def same(left, right):
    return all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.mask, b.mask) and a.where == b.where
        for a, b in zip(left, right, strict=True)
    )


def test_a_cache_hit_gives_identical_examples_and_report(chats, tok, tmp_cache):
    settings = {**SETTINGS, "template_name": "chatml", "max_length": 20, "truncation": "truncate"}
    first, report = encode.encode_file(chats, tok, **settings)
    assert not report.from_cache
    second, again = encode.encode_file(chats, tok, **settings)
    assert again.from_cache
    assert same(first, second)
    assert again == report
    assert again.as_text() == report.as_text()
    assert [entry.suffix for entry in tmp_cache.iterdir()] == [".npz"]  # and no temporary file is left


def test_changed_data_template_tokenizer_or_settings_miss_the_cache(chats, make_tok, tok, tmp_cache, tmp_path):
    settings = {**SETTINGS, "template_name": str(tmp_path / "mine.jinja")}
    source = (template.FOLDER / "chatml.jinja").read_text()
    (tmp_path / "mine.jinja").write_text(source)
    hit = lambda tok=tok, **changed: encode.encode_file(chats, tok, **{**settings, **changed})[1].from_cache
    assert [hit(), hit()] == [False, True]
    assert not hit(make_tok(eos="<|endoftext|>"))
    assert not hit(train_on="all")
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "The sky"}')
    plain = [encode.encode_file(texts, t, **SETTINGS)[1].from_cache for t in (tok, make_tok(eos="<|endoftext|>"), tok)]
    assert plain == [False, False, True]
    assert not hit(max_length=20, truncation="truncate")
    (tmp_path / "mine.jinja").write_text(source + "{# another #}")
    assert not hit()
    chats.write_text(chats.read_text().replace("What?", "What!"))
    assert not hit()
    assert hit()
    assert len(list(tmp_cache.iterdir())) == 8


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_cache_is_made_again(damage, chats, tok, tmp_cache):
    settings = {**SETTINGS, "template_name": "chatml"}
    first, _ = encode.encode_file(chats, tok, **settings)
    (entry,) = tmp_cache.iterdir()
    whole = bytearray(entry.read_bytes())
    at = whole.index(np.concatenate([example.ids for example in first]).tobytes()) + 5
    whole[at] ^= 1
    entry.write_bytes({"cut": whole[: len(whole) // 2], "flip": bytes(whole), "empty": b""}[damage])
    second, report = encode.encode_file(chats, tok, **settings)
    assert not report.from_cache
    assert same(first, second)
    assert encode.encode_file(chats, tok, **settings)[1].from_cache


def test_a_cache_that_cannot_be_written_warns_and_the_rows_are_there(chats, tok, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not cached in .*file"):
        examples, _ = encode.encode_file(chats, tok, **{**SETTINGS, "template_name": "chatml"})
    assert len(examples) == 3


def test_an_interrupted_write_leaves_the_cache_as_it_was(chats, tok, tmp_cache, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.warns(UserWarning, match="No space left on device"):
        encode.encode_file(chats, tok, **{**SETTINGS, "template_name": "chatml"})
    assert list(tmp_cache.iterdir()) == []


@pytest.mark.usefixtures("tmp_cache")
def test_records_are_encoded_and_cached_like_a_file(chats, tok):
    settings = {**SETTINGS, "template_name": "chatml"}
    rows = records.read(str(chats))
    first, report = encode.encode_file(rows, tok, **settings)
    assert same(first, encode.encode_file(chats, tok, **settings)[0])
    assert not report.from_cache
    assert encode.encode_file(rows, tok, **settings)[1].from_cache
    changed = [dataclasses.replace(rows[0], extra={"chat_template_kwargs": {"x": 1}}), *rows[1:]]
    assert not encode.encode_file(changed, tok, **settings)[1].from_cache


def test_the_cache_folder_is_under_the_home_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("FTJAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "ftjax" / "tokens"


def test_a_large_file_is_encoded_in_a_few_seconds(tok):
    import time

    rows = [
        records.Conversation(
            (records.Message("user", f"What is {n}?"), records.Message("assistant", f"It is {n}.")), (), f"a:{n}", {}
        )
        for n in range(5000)
    ]
    start = time.process_time()
    encode.encode_records(
        rows, tok, made=template.load("chatml", tok), max_length=None, truncation="error", train_on="assistant"
    )
    assert time.process_time() - start < 5


# Not Llama's: this tokenizer, unlike Llama's, would join the two newlines of its header in a prompt but not in a chat.
@pytest.mark.parametrize("name", ["gemma_training", "qwen2_5_training", "qwen3_training"])
def test_ids_and_mask_are_those_of_transformers_but_for_white_space_that_is_never_sampled(
    name, named, make_tok, chat_of
):
    made = named(name)
    tok = make_tok(bos=made.bos_token or None, eos=made.eos_token)
    conversation = chat_of("user", "The sky?", "assistant", "It is blue.", "user", "Hello?", "assistant", "It is 4.")
    example = encode.encode(conversation, tok, made=made, train_on="assistant")
    theirs = tok.hf.apply_chat_template(
        [message.for_template() for message in conversation.messages],
        chat_template=made.text,
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    assert example.ids.tolist() == theirs["input_ids"]
    differing = np.flatnonzero(example.mask != theirs["assistant_masks"])
    assert all(tok.decode([example.ids[at]], skip_special=False) == "\n" for at in differing)
    assert len(differing) <= 4
