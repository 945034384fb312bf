"""Prompts to sample completions of: where they come from in a row, how long they may be, what goes on to the reward."""

import copy
import itertools
import json

import numpy as np
import pytest

from ftjax.data import batch as arrays
from ftjax.data import encode, loader, prompts, template, tokenizer
from ftjax.errors import UserError

USER = {"role": "user", "content": "Say red."}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "red!"}


@pytest.fixture(scope="module")
def tok(tiny_base):
    return tokenizer.load(tiny_base)


@pytest.fixture(scope="module")
def made(tok):
    return template.load(None, tok)


@pytest.fixture
def read(tmp_path, tok, made):
    """Returns a function: rows and changes -> prompts and report of a file of them."""

    def run(*rows, **changes):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        plain = {"tok": tok, "made": made, "max_length": 64, "truncation": "drop", "numbers": itertools.count()}
        return prompts.read(path, **(plain | changes))

    return run


@pytest.mark.parametrize(
    ("row", "text", "reference"),
    [
        ({"prompt": "Say red."}, "Say red.", None),
        ({"prompt": [USER]}, "Say red.", None),
        ({"prompt": [SYSTEM, USER], "answer": "red"}, "Say red.", None),
        ({"question": "Say red.", "answer": "red"}, "Say red.", None),
        ({"messages": [USER, ANSWER]}, "Say red.", "red!"),
        ({"messages": [SYSTEM, USER]}, "Say red.", None),
        ({"prompt": "Say red.", "chosen": "red!", "rejected": "no"}, "Say red.", None),
        ({"prompt": "Say red.", "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "no"}]}, "Say red.", None),
        ({"chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "no"}]}, "Say red.", None),
    ],
)
def test_every_form_of_a_row_that_has_a_prompt_is_read(read, tok, row, text, reference):
    (one,), report = read(row)
    assert one.text == text
    assert one.row.get("reference") == reference
    for key, value in row.items():
        assert one.row[key] == value
    if isinstance(row.get("prompt"), str) and isinstance(row.get("chosen", ""), str):
        assert tok.decode(one.ids.tolist(), skip_special=False) == text
        assert "prompt_messages" not in one.row
    else:
        asked = one.row["prompt_messages"]
        assert asked[-1] == USER
        assert tok.decode(one.ids.tolist(), skip_special=False).endswith("Say red.<|im_end|>\n<|im_start|>assistant\n")
    assert report == prompts.Report(rows=1, kept=1, dropped=0, truncated=0, left_out={})
    assert one.where.endswith("rows.jsonl:1")


def test_a_prompt_that_is_too_long_is_dropped_cut_in_front_or_an_error(read):
    short, long = {"prompt": "red"}, {"prompt": "red green blue lamp rope boat bread tree"}
    whole = read(long)[0][0].ids
    kept, report = read(long, short, max_length=4)
    assert [one.text for one in kept] == ["red"]
    assert (report.dropped, report.truncated, report.kept) == (1, 0, 1)
    assert report.as_text() == "1 of 2 prompts (1 too long, 0 cut)"
    kept, report = read(long, short, max_length=4, truncation="truncate")
    np.testing.assert_array_equal(kept[0].ids, whole[-4:])
    assert (report.dropped, report.truncated) == (0, 1)
    with pytest.raises(
        UserError, match=rf"rows.jsonl:1: a prompt of {len(whole)} tokens, but max_length is 4; raise it"
    ):
        read(long, short, max_length=4, truncation="error")
    with pytest.raises(UserError, match=r"none of 1 prompts has at most 2 tokens; raise config.data.max_length"):
        read(long, max_length=2)
    with pytest.raises(UserError, match="truncation='cut'; known: drop, truncate, error"):
        read(short, truncation="cut")


def test_a_bos_stays_in_front_of_a_prompt_that_is_cut(read, tok):
    with_bos = copy.copy(tok)
    with_bos.bos_id = 1
    words = {"prompt": "red green blue lamp rope boat bread tree"}
    (whole,), _ = read(words, tok=with_bos)
    (cut,), _ = read(words, tok=with_bos, max_length=4, truncation="truncate")
    assert whole.ids[0] == 1
    np.testing.assert_array_equal(cut.ids, [1, *whole.ids[-3:]])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": "only text"}, r"no prompt; give a column prompt .* or messages \(has: text\)"),
        ({"prompt": "  "}, "'prompt' is empty; fill it or remove the row"),
        ({"messages": [SYSTEM]}, "no turn of a user to answer"),
        ({"prompt": None, "answer": 3}, r"no prompt.*\(has: answer\)"),
    ],
)
def test_a_row_without_a_prompt_is_named(read, row, says):
    with pytest.raises(UserError, match=rf"rows.jsonl:2: {says}"):
        read({"prompt": "red"}, row)


def test_a_chat_without_a_template_is_an_error_that_says_where_to_name_one(read):
    with pytest.raises(
        UserError, match=r"rows.jsonl:1: a chat, but the model has no chat template; .*config.data.template"
    ):
        read({"question": "Say red."}, made=None)
    assert read({"prompt": "red"}, made=None)[0][0].text == "red"


def test_numbers_go_on_over_files_and_a_batch_has_its_prompts_at_the_right_end(read):
    numbers = itertools.count()
    first, _ = read({"prompt": "red"}, {"prompt": "green blue"}, numbers=numbers)
    second, _ = read({"prompt": "lamp"}, numbers=numbers)
    assert [one.number for one in first + second] == [0, 1, 2]
    made = prompts.collate([[first[1]], [], [second[0]]], length=12)
    np.testing.assert_array_equal(made.numbers, [1, -1, 2])
    for row, one in ((0, first[1]), (2, second[0])):
        np.testing.assert_array_equal(made.tokens[row, -len(one.ids) :], one.ids)
        np.testing.assert_array_equal(made.segments[row], np.arange(12) >= 12 - len(one.ids))
    assert not made.segments[1].any()


def test_text_is_beside_the_prompts_batch_by_batch(read):
    rows, _ = read(*({"prompt": word} for word in ("red", "green", "blue", "lamp", "rope")))
    alone = loader.Shard(0, 1)
    given = {"weights": None, "batch_size": 2, "buckets": (16,), "seed": 5, "shard": alone}
    main = loader.Loader([rows], collator=prompts.PROMPTS, layout="padded", length=16, **given)
    texts = [encode.Example(np.arange(4, dtype=np.int32) + n, np.ones(4, np.uint8), "t:1") for n in range(9)]
    other = loader.Loader([texts], collator=arrays.EXAMPLES, layout="packed", length=8, **given)
    beside = loader.Beside(main, other, "text")
    assert (beside.rows, beside.batch_size, beside.batches_per_epoch) == (5, 2, 2.5)
    stream = beside.iterate(3, threads=1, prefetch=1)
    for k in range(3, 6):
        found = next(stream)
        for one, whole in (
            (found._replace(text=None), main.batch(k)._replace(text=None)),
            (found.text, other.batch(k)),
        ):
            for a, b in zip(one, whole, strict=True):
                np.testing.assert_array_equal(a, b)
