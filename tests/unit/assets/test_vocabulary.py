"""The tokenizer of the embedded base: deterministic, loses nothing, loads without torch, masks by its own template."""

import itertools

import pytest

from ftjax.assets import vocabulary, world

SIZE = 600


@pytest.fixture(scope="module")
def rows():
    return list(itertools.islice(world.corpus(0), 1500))


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    vocabulary.save(vocabulary.train(rows, SIZE), folder, longest=1024)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_training_twice_gives_the_same_bytes(rows, folder, tmp_path):
    vocabulary.save(vocabulary.train(rows, SIZE), tmp_path, longest=1024)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_it_round_trips_the_corpus_and_any_other_text(rows, loaded):
    texts = [row["text"] for row in rows if "text" in row] + ["", "  naïve 漢字 🙂\n\n\tx=f(y) ", "<|end|", "12:30"]
    for text in texts:
        assert loaded.decode(loaded.encode(text, add_special_tokens=False)) == text


def test_the_vocabulary_is_full_and_special_tokens_come_first(loaded):
    assert len(loaded) == SIZE
    assert loaded.convert_ids_to_tokens(range(len(vocabulary.SPECIAL))) == list(vocabulary.SPECIAL)
    assert (loaded.pad_token, loaded.bos_token, loaded.eos_token) == (vocabulary.PAD, vocabulary.BOS, vocabulary.END)


def test_every_digit_is_a_token_of_its_own(loaded):
    tokens = loaded.tokenize("It costs 128 coins, 08:00 or 7.")
    assert [token.lstrip("Ġ") for token in tokens if any(c.isdigit() for c in token)] == list("12808007")


def test_encoding_a_text_puts_one_bos_in_front(loaded):
    assert loaded("Hello").input_ids.count(loaded.bos_token_id) == 1
    assert loaded("Hello").input_ids[0] == loaded.bos_token_id


def test_the_chat_template_writes_what_rendered_writes(rows, loaded):
    for row in [row for row in rows if "messages" in row][:200]:
        assert loaded.apply_chat_template(row["messages"], tokenize=False) == vocabulary.rendered(row)


def test_the_template_marks_the_answers_with_their_end_token_and_nothing_else(loaded):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Who is it?"},
        {"role": "assistant", "content": "It is Anna."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "In Elm."},
    ]
    out = loaded.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    trained = [i for i, mask in zip(out["input_ids"], out["assistant_masks"], strict=True) if mask]
    assert loaded.decode(trained) == "It is Anna.<|end|>In Elm.<|end|>"


def test_a_generation_prompt_ends_where_the_answer_begins(loaded):
    asked = [{"role": "user", "content": "Who?"}]
    text = loaded.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "<|bos|><|user|>Who?<|end|><|assistant|>"


def test_the_template_refuses_an_unknown_role(loaded):
    with pytest.raises(Exception, match="Unknown role critic"):
        loaded.apply_chat_template([{"role": "critic", "content": "Bad."}], tokenize=False)
