import dataclasses
import math

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from ftjax import errors
from ftjax.data import candidates, encode, preferences, template

SETTINGS = {"max_length": None, "truncation": "error", "equal": "error", "mismatched": False}
WORDS = strategies.text(strategies.sampled_from("abc 4.?\n\té漢🙂"), min_size=1, max_size=12).filter(
    lambda text: text.strip()
)


def chat(*words):
    return [{"role": role, "content": text} for role, text in zip(words[::2], words[1::2], strict=True)]


def pair(prompt="Hello", chosen="It is 4.", rejected="It", **more):
    """A pair of chats."""
    return {
        "prompt": chat("user", prompt),
        "chosen": chat("assistant", chosen),
        "rejected": chat("assistant", rejected),
        **more,
    }


def rows_of(*rows):
    return [preferences.from_row(row, f"p.jsonl:{n}") for n, row in enumerate(rows, start=1)]


def encoded(rows, tok, made="chatml", **settings):
    made = template.load(made, tok) if isinstance(made, str) else made
    return candidates.encode_preferences(rows_of(*rows), tok, made=made, **{**SETTINGS, **settings})


def texts(one, tok):
    return [tok.decode(ids, skip_special=False) for ids in (one.prompt, *one.completions)]


def test_a_pair_is_one_prompt_and_two_completions_that_end_in_the_stop_token(tok):
    (one,), _ = encoded([pair()], tok)
    prompt = "<bos><|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert texts(one, tok) == [prompt, "It is 4.<|im_end|>", "It<|im_end|>"]
    assert [mask.tolist() for mask in one.masks] == [[1] * 5, [1] * 2]
    assert {array.dtype.name for array in (one.prompt, *one.completions)} == {"int32"}
    assert {mask.dtype.name for mask in one.masks} == {"uint8"}
    assert (one.pairs, one.margins, one.labels, one.where) == (((0, 1),), (0.0,), (1.0, 0.0), "p.jsonl:1")
    assert (one.mismatched, one.mismatched_masks, one.reference) == ((), (), ())


def test_plain_text_needs_no_template_and_gets_an_end_token(tok):
    (one,), _ = encoded([{"chosen": "The sky is blue.", "rejected": "The sky is 4."}], tok, made=None)
    assert texts(one, tok) == ["<bos>The sky is", " blue.<eos>", " 4.<eos>"]


@pytest.mark.parametrize("name", template.shipped())
@hypothesis.settings(
    max_examples=15, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(WORDS, WORDS, WORDS)
def test_prompt_and_completions_have_the_tokens_of_generation_and_of_supervised_rows(name, tok, a, b, c):
    made = template.load(name, tok)
    hypothesis.assume("".join(b.split()) != "".join(c.split()))
    rows = rows_of(pair(a, b, c))
    (one,), _ = candidates.encode_preferences(rows, tok, made=made, **SETTINGS)
    asked = encode.prompt_ids(rows[0].prompt, tok, made=made, tools=())
    assert one.prompt.tolist() == asked
    for completion, ids, mask in zip(rows[0].completions, one.completions, one.masks, strict=True):
        turns = [{"role": turn.role, "content": turn.content} for turn in rows[0].prompt + completion]
        supervised = encode.encode(
            preferences.records.from_row({"messages": turns}, "a:1"), tok, made=made, train_on="assistant"
        )
        whole = [*one.prompt.tolist(), *ids.tolist()]
        assert supervised.ids.tolist()[: len(whole)] == whole
        assert supervised.mask.tolist()[: len(whole)] == [0] * len(one.prompt) + mask.tolist()
        assert not supervised.mask[len(whole) :].any()
        assert (mask == 1).all()
        assert ids[-1] in tok.added_ids


def test_in_a_completion_of_several_turns_only_the_assistant_counts(tok):
    turns = chat("assistant", "It", "user", "you", "assistant", "is")
    (one,), _ = encoded([{**pair(), "chosen": turns}], tok)
    assert texts(one, tok)[1] == ("It<|im_end|>\n<|im_start|>user\nyou<|im_end|>\n<|im_start|>assistant\nis<|im_end|>")
    counted = tok.decode(one.completions[0][one.masks[0] == 1], skip_special=False)
    assert counted == "It<|im_end|>is<|im_end|>"


def test_a_template_that_writes_the_prompt_by_what_follows_is_refused_with_the_token(tok):
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ messages[-1].content[:1] }}{{ m.content }}\n{% else %}"
        "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ raise_exception('no prompt') }}{% endif %}"
    )
    made = template.Template(name="odd", text=source, bos_token="<bos>", eos_token="<eos>")
    message = (
        r"p.jsonl:1: completion 2 has another prompt than completion 1: token 2 is 'b', not 'a'; chat template odd "
        r"writes the prompt by what follows it: use another template"
    )
    with pytest.raises(errors.UserError, match=message):
        encoded([pair(chosen="a", rejected="b")], tok, made=made)


def test_an_empty_prompt_needs_a_bos(tok, make_tok):
    row = {"prompt": "", "chosen": "It", "rejected": "is"}
    (one,), _ = encoded([row], tok, made=None)
    assert texts(one, tok) == ["<bos>", "It<eos>", "is<eos>"]
    with pytest.raises(errors.UserError, match=r"p.jsonl:1: the prompt is empty, and the tokenizer has no BOS"):
        encoded([row], make_tok(bos=None), made=None)


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ({"prompt": "Hi", "chosen": "It", "rejected": "<eos>"}, None),
        (pair(rejected="<|im_end|>"), "chatml"),
        (pair(rejected="\n<|im_end|>\n"), "chatml"),
    ],
)
def test_a_completion_of_only_the_stop_token_is_refused(tok, row, made):
    with pytest.raises(errors.UserError, match=r"p.jsonl:1: completion 2 is nothing but the stop token"):
        encoded([row], tok, made=made)


def test_truncation_cuts_the_prompt_from_the_left_and_keeps_bos_and_completions(tok):
    rows = [pair("Hello there. What is 2 + 2?"), pair()]
    whole, _ = encoded(rows, tok)
    cut, told = encoded(rows, tok, max_length=20, truncation="truncate")
    for before, after in zip(whole, cut, strict=True):
        longest = max(map(len, before.completions))
        assert len(after.prompt) == min(len(before.prompt), 20 - longest)
        assert after.prompt[0] == tok.bos_id
        assert after.prompt[1:].tolist() == before.prompt[len(before.prompt) - len(after.prompt) + 1 :].tolist()
        assert [ids.tolist() for ids in after.completions] == [ids.tolist() for ids in before.completions]
    assert (told.kept, told.truncated, told.dropped, told.emptied) == (2, 1, 0, 0)
    assert "2 read, 2 kept, 1 with the prompt cut from the left" in told.as_text()


def test_a_row_whose_completion_would_be_cut_is_left_out_and_counted(tok):
    rows = [pair(), pair(chosen="sky " * 30)]
    found, told = encoded(rows, tok, max_length=20, truncation="truncate")
    assert [one.where for one in found] == ["p.jsonl:1"]
    assert (told.rows, told.kept, told.emptied, told.truncated) == (2, 1, 1, 0)
    least = len(found[0].completions[0]) + 2  # BOS and one token of the prompt
    (one,), _ = encoded(rows[:1], tok, max_length=least, truncation="truncate")
    assert one.prompt.tolist() == [tok.bos_id, found[0].prompt[-1]]
    with pytest.raises(errors.UserError, match=r"p.jsonl: none of 1 rows is left .* 1 longer than max_length"):
        encoded(rows[:1], tok, max_length=least - 1, truncation="truncate")


def test_longer_rows_are_dropped_or_stop_the_command_as_asked(tok):
    rows = [pair("Hello there. What is 2 + 2?"), pair()]
    found, told = encoded(rows, tok, max_length=20, truncation="drop")
    assert [one.where for one in found] == ["p.jsonl:2"]
    assert (told.dropped, told.kept) == (1, 1)
    with pytest.raises(errors.UserError, match=r"p.jsonl:1: prompt and longest completion have \d+ tokens, but"):
        encoded(rows, tok, max_length=20, truncation="error")


def test_pairs_that_differ_in_white_space_alone_are_dropped_and_counted_or_refused(tok):
    rows = [pair(), pair(rejected=" It  is\n4. "), pair(chosen="It", rejected="It")]
    found, told = encoded(rows, tok, equal="drop")
    assert [one.where for one in found] == ["p.jsonl:1"]
    assert (told.rows, told.kept, told.equal, told.equal_pairs) == (3, 1, 2, 2)
    assert "2 dropped (equal completions)" in told.as_text()
    with pytest.raises(errors.UserError, match=r"p.jsonl:2: completions 1 and 2 are equal but for white space"):
        encoded(rows, tok, equal="error")
    with pytest.raises(errors.UserError, match=r"none of 1 rows is left \(1 with equal completions"):
        encoded(rows[1:2], tok, equal="drop")


def test_of_a_ranking_only_the_equal_pairs_go(tok):
    row = {"prompt": chat("user", "Hello"), "completions": ["It", "is", "It "], "ranks": [1, 2, 3]}
    tied = {**row, "ranks": [1, 1, 1]}
    (one,), told = encoded([row, tied], tok, equal="drop")
    assert one.pairs == ((0, 1), (1, 2))
    assert len(one.completions) == 3
    assert all(math.isnan(label) for label in one.labels)
    assert (told.equal_pairs, told.equal, told.tied, told.pairs, told.labelled) == (1, 0, 1, 2, 0)


def test_labels_and_margins_are_those_of_the_rows(tok):
    rows = [
        {"prompt": "The", "completion": " sky", "label": False},
        {"prompt": "The", "completion": " sky", "score": -1.5},
        {"prompt": "The", "chosen": " sky", "rejected": " 4", "margin": 2},
        {"prompt": "The", "completions": [" sky", " 4"], "scores": [0.5, 3]},
    ]
    found, told = encoded(rows, tok, made=None)
    assert [one.labels for one in found] == [(0.0,), (-1.5,), (1.0, 0.0), (0.5, 3.0)]
    assert [one.pairs for one in found] == [(), (), ((0, 1),), ((1, 0),)]
    assert [one.margins for one in found] == [(), (), (2.0,), (0.0,)]
    assert (told.pairs, told.completions, told.labelled) == (2, 6, 6)


def test_mismatched_completions_are_those_of_the_next_row_with_another_prompt(tok):
    unpaired = {"prompt": "Hello", "completion": " you", "label": True}
    rows = [
        {"prompt": "The", "chosen": " sky", "rejected": " 4"},
        unpaired,
        {**unpaired, "completion": " there"},
        {"prompt": "What", "completion": " is", "label": False},
    ]
    found, _ = encoded(rows, tok, made=None, mismatched=True)
    wanted = [[" you<eos>", " you<eos>"], [" is<eos>"], [" is<eos>"], [" sky<eos>"]]
    assert [[tok.decode(ids, skip_special=False) for ids in one.mismatched] for one in found] == wanted
    assert all(len(one.mismatched) == len(one.completions) == len(one.mismatched_masks) for one in found)
    with pytest.raises(errors.UserError, match=r"p.jsonl:1: no other row has another prompt"):
        encoded(rows[1:3], tok, made=None, mismatched=True)


@pytest.mark.parametrize("truncation", ["truncate", "drop"])
def test_mismatched_completions_fit_within_the_length_too(tok, truncation):
    words = ["Hello there. " * n for n in (1, 4, 2, 1, 3)]
    rows = [pair(f"{n} {text}", text, "4") for n, text in enumerate(reversed(words))]
    length = 40
    found, told = encoded(rows, tok, max_length=length, truncation=truncation, mismatched=True)
    assert len(found) >= 3
    for one in found:
        assert len(one.prompt) + max(len(ids) for ids, _ in one.branches()) <= length
        assert (one.prompt[0], one.prompt[-1]) == (tok.bos_id, found[0].prompt[-1])
    if truncation == "truncate":
        whole, _ = encoded(rows, tok, mismatched=True)
        before = {one.where: len(one.prompt) for one in whole}
        assert told.truncated == sum(len(one.prompt) < before[one.where] for one in found)


def test_the_size_of_a_row_counts_the_prompt_once_or_for_each_completion(tok):
    (one,), _ = encoded([pair()], tok)
    n, a, b = len(one.prompt), *map(len, one.completions)
    assert one.size("shared") == n - 1 + (1 + a) + (1 + b)
    assert one.size("repeated") == (n + a) + (n + b)
    more = one._replace(mismatched=(one.completions[1],), mismatched_masks=(one.masks[1],))
    assert more.size("shared") - one.size("shared") == 1 + b
    with pytest.raises(errors.UserError, match=r"prefix='share' \(did you mean 'shared'\?\)"):
        one.size("share")


def test_the_report_counts_lengths_and_how_often_the_better_one_is_longer(tok):
    _, told = encoded([pair(), pair(chosen="It", rejected="It is 4."), pair("What", "It is", "It")], tok)
    assert told.chosen_longer == pytest.approx(2 / 3)
    assert set(told.lengths) == {"prompt", "completion", "chosen", "rejected"}
    assert (told.lengths["chosen"]["shortest"], told.lengths["chosen"]["longest"]) == (2, 5)
    assert told.trained_tokens == 5 + 2 + 2 + 5 + 3 + 2
    assert "the better one is longer in 66.7%" in told.as_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"truncation": "cut"}, r"truncation='cut'"),
        ({"equal": "dorp"}, r"equal='dorp' \(did you mean 'drop'\?\); known: drop, error"),
        ({"max_length": 1}, r"max_length=1 must be at least 2"),
    ],
)
def test_settings_that_do_not_exist_are_refused(tok, changed, message):
    with pytest.raises(errors.UserError, match=message):
        encoded([pair()], tok, **changed)


def same(left, right):
    flat = lambda one: [one.prompt, *one.completions, *one.masks, *one.mismatched, *one.mismatched_masks]
    return len(left) == len(right) and all(
        all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(flat(a), flat(b), strict=True))
        and (a.pairs, a.margins, a.where) == (b.pairs, b.margins, b.where)
        and np.array_equal(a.labels, b.labels, equal_nan=True)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("mismatched", [False, True])
def test_a_cache_hit_gives_identical_candidates_and_report(tok, tmp_cache, mismatched):
    rows = rows_of(
        pair(), {"prompt": chat("user", "you"), "completions": ["It", "is", "4"], "ranks": [1, 2, 2]},
        {**pair("What"), "chosen": chat("assistant", "It", "user", "you", "assistant", "is"), "margin": 2},
    )  # fmt: skip
    settings = {**SETTINGS, "template_name": "chatml", "max_length": 30, "mismatched": mismatched}
    settings["truncation"] = "truncate"
    first, told = candidates.encode_preferences_file(rows, tok, **settings)
    assert not told.from_cache
    again, stored = candidates.encode_preferences_file(rows, tok, **settings)
    assert stored.from_cache
    assert same(first, again)
    assert stored == told
    assert stored.as_text() == told.as_text()
    assert len(list(tmp_cache.iterdir())) == 1


@pytest.mark.usefixtures("tmp_cache")
def test_changed_data_or_settings_miss_the_cache_and_supervised_rows_have_keys_of_their_own(tok, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "The", "completion": " sky", "label": true}\n{"prompt": "What", "completion": " is", '
                    '"label": true}\n')  # fmt: skip
    settings = {**SETTINGS, "template_name": None}
    hit = lambda **changed: candidates.encode_preferences_file(path, tok, **{**settings, **changed})[1].from_cache
    assert [hit(), hit()] == [False, True]
    assert not hit(mismatched=True)
    assert not hit(equal="drop")
    assert not hit(max_length=20)
    kept = {"template_name": None, "max_length": None, "truncation": "error", "train_on": "assistant"}
    assert not encode.encode_file(path, tok, **kept)[1].from_cache
    path.write_text(path.read_text().replace("sky", "4"))
    assert [hit(), hit()] == [False, True]


@pytest.mark.usefixtures("tmp_cache")
def test_variables_of_the_template_are_part_of_the_key(tok):
    rows = rows_of(pair())
    settings = {**SETTINGS, "template_name": "chatml"}
    candidates.encode_preferences_file(rows, tok, **settings)
    changed = [dataclasses.replace(rows[0], extra={"chat_template_kwargs": {"x": 1}})]
    assert not candidates.encode_preferences_file(changed, tok, **settings)[1].from_cache


def test_real_transcripts_are_encoded_behind_one_prompt_each(shared_data, tok):
    import gzip
    import itertools
    import json

    path = shared_data / "hh_rlhf_harmless" / "harmless_base_test_shared.jsonl.gz"
    with gzip.open(path, "rt") as stream:
        rows = [json.loads(line) for line in itertools.islice(stream, 60)]
    found, told = encoded(rows, tok, max_length=400, truncation="truncate", equal="drop", mismatched=True)
    assert told.kept + told.equal + told.emptied == 60
    assert told.truncated > 0
    for one in found:
        assert max(len(one.prompt) + len(ids) for ids, _ in one.branches()) <= 400
        assert all(ids[-1] in tok.added_ids for ids in one.completions)
