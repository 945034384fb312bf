"""The tokenizer of a GGUF file gives the ids of the tokenizer that it was written from, or is refused by name."""

import io
import json

import gguf_cases
import numpy as np
import pytest

from ftjax.data import gguf_tokenizer, tokenizer
from ftjax.errors import UserError

TEXTS = (
    "Hello world 2024, it's 3.14!",
    "  two  spaces\n\ttab \n\n a  2",
    "def f(x):\n    return x**2",
    "<|im_start|>user\nSay red lamp.<|im_end|>\n",
    "don't I'LL naïve 漢字 🙂",
    "red green blue",
    "",
)


def written(path, keys):
    """Writes a file with a tokenizer and no model worth the name."""
    tokenizer_keys = {f"tokenizer.ggml.{name}": value for name, value in keys.items() if name != "chat_template"}
    more = {"tokenizer.chat_template": keys.get("chat_template")}
    return gguf_cases.write(path, "llama", tokenizer_keys | more, {"x": np.zeros((1, 32), np.float32)})


def byte_level(folder):
    """Returns the keys that the converter writes for a byte-level tokenizer.json."""
    core = json.loads((folder / "tokenizer.json").read_text())
    texts = sorted(core["model"]["vocab"], key=core["model"]["vocab"].get)
    control = {token["content"] for token in core["added_tokens"]}
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": texts,
        "token_type": [3 if text in control else 1 for text in texts],
        "merges": [" ".join(pair) for pair in core["model"]["merges"]],
        "eos_token_id": 2,
        "padding_token_id": 0,
        "chat_template": "{{ messages }}",
    }


def test_byte_level_ids_are_those_of_the_model_folder(tiny_base, tmp_path):
    made = tokenizer.load(written(tmp_path / "model.gguf", byte_level(tiny_base)))
    known = tokenizer.load(tiny_base)
    assert [made.encode(text) for text in TEXTS] == [known.encode(text) for text in TEXTS]
    assert [made.decode(made.encode(text).ids, skip_special=False) for text in TEXTS] == list(TEXTS)
    same = ("vocab_size", "bos_id", "eos_id", "pad_id", "special_ids", "stop_ids", "eos_token")
    assert [getattr(made, name) for name in same] == [getattr(known, name) for name in same]
    assert made.chat_template == "{{ messages }}"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["a", "ĠĠ", "Ġ1234", "Ġit", "'s", "ĊĊ", "Ġx", "'", "LL"]),
        ("smollm", ["a", "ĠĠĠ", "1", "2", "3", "4", "Ġit", "'s", "ĊĊ", "Ġx", "'", "LL"]),
        ("llama-bpe", ["a", "ĠĠ", "Ġ", "123", "4", "Ġit", "'s", "ĊĊ", "Ġx", "'LL"]),
        ("qwen2", ["a", "ĠĠ", "Ġ", "1", "2", "3", "4", "Ġit", "'s", "ĊĊ", "Ġx", "'LL"]),
    ],
)
def test_text_is_cut_as_the_name_of_the_splitting_says(pre, pieces, tiny_base, tmp_path):
    made = tokenizer.load(written(tmp_path / "model.gguf", byte_level(tiny_base) | {"pre": pre}))
    found = made.hf.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a   1234 it's\n\n x'LL")
    assert [piece for piece, _ in found] == pieces


def test_a_token_after_the_turn_stops_generation_too(tiny_base, tmp_path):
    keys = byte_level(tiny_base) | {"eot_token_id": 1, "bos_token_id": 1, "add_bos_token": True}
    made = tokenizer.load(written(tmp_path / "model.gguf", keys))
    assert made.stop_ids == (2, 1)
    assert 1 not in made.encode("Hello").ids, "ftjax adds no token by itself"
    assert made.hf("Hello").input_ids[0] == 1, "but transformers is told to"


def test_a_saved_tokenizer_is_the_same_for_transformers(tiny_base, tmp_path):
    import transformers

    made = tokenizer.load(written(tmp_path / "model.gguf", byte_level(tiny_base) | {"pre": "smollm"}))
    (tmp_path / "out").mkdir()
    made.save(tmp_path / "out")
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [hf(text).input_ids for text in TEXTS] == [made.encode(text).ids for text in TEXTS]
    assert (hf.eos_token, hf.pad_token, hf.chat_template) == ("<|im_end|>", "<|pad|>", "{{ messages }}")
    assert tokenizer.load(tmp_path / "out").fingerprint == made.fingerprint


@pytest.fixture(scope="module")
def pieces():
    """A SentencePiece BPE model with byte fallback, and the keys that the converter writes for it."""
    import sentencepiece

    text = "the red lamp is on the green boat. two  spaces and 42 ropes, don't! def f(x): return z\n" * 20
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()),
        model_writer=stream,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<turn>"],
        control_symbols=["<end>"],
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=stream.getvalue())
    count = range(model.vocab_size())
    kinds = [6 if model.is_byte(i) else 3 if model.is_control(i) else 2 if model.is_unknown(i) else 1 for i in count]
    kinds[model.piece_to_id("<turn>")] = 4
    keys = {
        "model": "llama",
        "tokens": [model.id_to_piece(i) for i in count],
        "scores": [float(model.get_score(i)) for i in count],
        "token_type": kinds,
        "bos_token_id": model.bos_id(),
        "eos_token_id": model.eos_id(),
        "unknown_token_id": model.unk_id(),
    }
    return model, keys


SENTENCES = (
    "the red lamp",
    " two  spaces",
    "don't 漢字 🙂\n\tx",
    "<turn>red<turn>",
    "42",
    "a      b",
    "---====  ",
    "",
    *tokenizer.PROBES,
)


def test_sentencepiece_ids_are_those_of_the_model_that_the_pieces_came_from(pieces, tmp_path):
    model, keys = pieces
    made = tokenizer.load(written(tmp_path / "model.gguf", keys))
    assert [made.encode(text).ids for text in SENTENCES] == [model.encode(text) for text in SENTENCES]
    assert (made.bos_id, made.eos_id, made.vocab_size) == (1, 2, model.vocab_size())
    end = keys["tokens"].index("<end>")
    assert made.encode("red<end>").ids[-1] == end
    assert end in made.special_ids


def test_the_space_in_front_is_left_out_where_the_file_says_so(pieces, tmp_path):
    _, keys = pieces
    made = tokenizer.load(written(tmp_path / "model.gguf", keys | {"add_space_prefix": False}))
    known = tokenizer.load(written(tmp_path / "other.gguf", keys))
    assert made.encode(" the red").ids == known.encode("the red").ids != made.encode("the red").ids


def test_a_saved_sentencepiece_tokenizer_gives_its_ids_in_transformers(pieces, tmp_path):
    import transformers

    model, keys = pieces
    made = tokenizer.load(written(tmp_path / "model.gguf", keys))
    (tmp_path / "out").mkdir()
    made.save(tmp_path / "out")
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    plain = [text for text in SENTENCES if "<turn>" not in text]
    assert [hf(text, add_special_tokens=False).input_ids for text in plain] == [model.encode(text) for text in plain]
    assert hf("red").input_ids[0] == made.bos_id


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"pre": "tekken"}, "tokenizer.ggml.pre='tekken' is not implemented"),
        ({"pre": None}, "tokenizer.ggml.pre=None"),
        ({"model": "bert"}, "tokenizer.ggml.model='bert'"),
        ({"merges": None}, "tokenizer.ggml.merges is absent"),
        ({"merges": ["x zz"]}, "tokenizer.ggml.merges has"),
        ({"tokens": None}, "has no tokenizer"),
        ({"token_type": [1, 3]}, "with 2 types"),
        ({"eos_token_id": 5000}, "eos_token_id=5000 is none of"),
        ({"model": "llama"}, "with 0 scores"),
    ],
)
def test_what_cannot_be_built_exactly_is_refused_with_the_way_out(keys, match, tiny_base, tmp_path):
    file = written(tmp_path / "model.gguf", byte_level(tiny_base) | keys)
    with pytest.raises(UserError, match=match) as error:
        tokenizer.load(file)
    assert "\n" not in str(error.value)
    assert gguf_tokenizer.WAY_OUT in str(error.value)


def test_a_model_that_changes_white_space_is_refused(pieces, tmp_path):
    file = written(tmp_path / "model.gguf", pieces[1] | {"remove_extra_whitespaces": True})
    with pytest.raises(UserError, match="converts to other ids") as error:
        tokenizer.load(file)
    assert gguf_tokenizer.WAY_OUT in str(error.value)


@pytest.mark.parametrize("name", ["stories260k_hf", "tokenizer_mistral_v1"])
def test_published_sentencepiece_models_come_through_a_file_unchanged(name, shared_data, tmp_path):
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(next((shared_data / name).glob("tokenizer.model*"))))
    count = range(model.vocab_size())
    kinds = [6 if model.is_byte(i) else 3 if model.is_control(i) else 2 if model.is_unknown(i) else 1 for i in count]
    keys = {
        "model": "llama",
        "tokens": [model.id_to_piece(i) for i in count],
        "scores": [float(model.get_score(i)) for i in count],
        "token_type": kinds,
        "bos_token_id": model.bos_id(),
        "eos_token_id": model.eos_id(),
    }
    made = tokenizer.load(written(tmp_path / "model.gguf", keys))
    texts = (*tokenizer.PROBES, *TEXTS, "The quick brown fox, 3.14; naïve façade?\n\n    x = 2")
    assert [made.encode(text).ids for text in texts] == [model.encode(text) for text in texts]
