import json
import shutil

import hypothesis
from hypothesis import strategies
import pytest

from ftjax import errors
from ftjax.data import tokenizer


@pytest.fixture(scope="module")
def made(shared_data):
    return tokenizer.load(shared_data / "stories260k_hf")


TEXTS = strategies.text(strategies.sampled_from("ab é漢🙂\n\t .,?4HelotheskyUN"), max_size=30)


def test_a_lone_sentencepiece_model_gives_the_ids_of_the_models_authors(shared_data, made):
    golden = json.loads((shared_data / "stories260k_hf" / "golden.json").read_text())
    for case in golden["texts"]:
        assert [made.bos_id, *made.encode(case["text"]).ids] == case["ids"]
    assert (made.vocab_size, made.bos_id, made.eos_id, made.stop_ids) == (512, 1, 2, (2,))


def test_sentencepiece_puts_its_space_first_but_neither_after_a_cut_nor_before_a_special_token(made):
    words = lambda encoding: [made.token(i) for i in encoding.ids]
    assert words(made.encode("Once")) == ["▁Once"]
    assert words(made.encode("<s>Once")) == ["<s>", "▁Once"]
    assert words(made.encode("</s>")) == ["</s>"]
    assert "▁" not in "".join(words(made.continue_batch(["Once"])[0]))
    assert made.encode("<s>Once upon").offsets == [(0, 3), (3, 7), (7, 12)]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(TEXTS, TEXTS)
def test_sentencepiece_pieces_decode_to_the_text_they_came_from(made, first, second):
    ids = made.encode(first).ids + made.continue_batch([second])[0].ids
    expected = first + second if first else second.removeprefix(" ")
    assert made.decode(ids, skip_special=False) == expected


def test_gpt2_files_are_read_and_known_ids_come_out(shared_data):
    made = tokenizer.load(shared_data / "tokenizer_gpt2")
    assert made.encode("Hello world").ids == [15496, 995]
    assert (made.vocab_size, made.bos_id, made.eos_id, made.pad_id) == (50257, 50256, 50256, 50256)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(TEXTS)
def test_offsets_cover_the_text_in_order_and_decoding_gives_it_back(tok, text):
    encoding = tok.encode(text)
    assert tok.decode(encoding.ids, skip_special=False) == text
    assert encoding.offsets == sorted(encoding.offsets)
    assert {n for start, end in encoding.offsets for n in range(start, end)} == set(range(len(text)))


def test_encoding_adds_no_special_token_and_reads_those_in_the_text(tok):
    assert tok.decode(tok.encode("Hello").ids, skip_special=False) == "Hello"
    ids = tok.encode("<bos>Hello<|im_end|>").ids
    assert (ids[0], ids[-1]) == (tok.bos_id, tok.encode("<|im_end|>").ids[0])
    assert tok.decode(ids, skip_special=True) == "Hello"
    assert {ids[0], ids[-1]} <= tok.special_ids


def test_the_fingerprint_follows_vocabulary_special_tokens_and_template(make_tok, tok):
    same, other_eos, with_template = (
        make_tok(),
        make_tok(eos="<|endoftext|>"),
        make_tok(chat_template="{{ bos_token }}"),
    )
    assert tok.fingerprint == same.fingerprint
    assert len({tok.fingerprint, other_eos.fingerprint, with_template.fingerprint}) == 3


def test_a_saved_truncation_or_padding_does_not_cut_or_fill_rows(core, tmp_path, tok):
    import tokenizers

    cut = tokenizers.Tokenizer.from_str(core.to_str())
    cut.enable_truncation(3)
    cut.enable_padding(length=50)
    cut.save(str(tmp_path / "tokenizer.json"))
    made = tokenizer.load(tmp_path)
    assert made.encode("The sky is blue. The sky is blue.").ids == tok.encode("The sky is blue. The sky is blue.").ids


def test_stop_tokens_of_the_generation_config_are_kept(model_dir):
    folder = model_dir()
    first = tokenizer.load(folder)
    eot = first.encode("<|eot_id|>").ids[0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [eot, first.eos_id]}))
    assert tokenizer.load(folder).stop_ids == (first.eos_id, eot)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tok):
    tokenizer.check_vocabulary(tok, tok.vocab_size)
    last = tok.vocab_size - 1
    with pytest.raises(
        errors.UserError, match=rf"ids up to {last} .*vocabulary has {last} rows; use the tokenizer of this"
    ):
        tokenizer.check_vocabulary(tok, last)


def test_folders_without_a_usable_tokenizer_are_refused_in_one_line(tmp_path, model_dir):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    cases = {
        tmp_path / "modle": r"modle: no such file \(did you mean 'model'\?\)",
        tmp_path / "model": r"no tokenizer there \(tokenizer\.json or .*\); the folder holds config\.json",
        tmp_path / "model" / "config.json": r"is a file; name the model folder",
    }
    broken = shutil.copytree(model_dir(), tmp_path / "broken")
    (broken / "tokenizer.json").write_text('{"model": ')
    cases[broken] = r"transformers cannot read tokenizer\.json"
    for path, message in cases.items():
        with pytest.raises(errors.UserError, match=message) as caught:
            tokenizer.load(path)
        assert "\n" not in str(caught.value)


def test_an_offset_asked_for_alone_is_that_of_the_list(tok):
    text = "naïve 漢字 🙂\n  x<eos>= 1"
    offsets = tok.encode(text).offsets
    whole = list(offsets)
    assert len(offsets) == len(whole) > 5
    assert [offsets[n] for n in range(len(whole))] == whole
    assert [offsets[n] for n in range(-len(whole), 0)] == whole
    assert offsets[2:4] == whole[2:4]
    assert offsets == whole
    for outside in (len(whole), -len(whole) - 1):
        with pytest.raises(IndexError):
            offsets[outside]
