"""A small byte-level tokenizer with the marks of many chat formats, and real ones where the data folder is there."""

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from ftjax.data import records, template, tokenizer
from tests import bases, check_cases

MARKS = [
    *("<|pad|>", "<|begin_of_text|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>"),
    *("<|end|>", "<bos>", "<eos>"),
]
CORPUS = ["The sky is blue. Hello there. What is 2 + 2? It is 4.\nassistant\nuser\nsystem\n\n", "Hello", "It\n\n"] * 4

Make = Callable[..., tokenizer.Tokenizer]


@pytest.fixture(scope="session")
def main() -> Callable[[list[str]], int]:
    """What scripts/data.py does with its arguments."""
    return bases.script("data.py").main


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Writes rows, or lines as they are, to a file and returns its path."""

    def write(found: Any, name: str = "a.jsonl") -> str:
        (tmp_path / name).write_bytes(check_cases.lines(found))
        return str(tmp_path / name)

    return write


@pytest.fixture(scope="session")
def core() -> tokenizers.Tokenizer:
    """Byte-level BPE that merges across spaces and newlines, as GPT-2's does."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


@pytest.fixture(scope="session")
def model_dir(core: tokenizers.Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a model folder with the tokenizer, with the given special tokens and chat template."""

    def make(bos: str | None = "<bos>", eos: str = "<eos>", chat_template: str | None = None, **extra: Any) -> Path:
        folder = tmp_path_factory.mktemp("model")
        core.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "bos_token": bos, **extra}
        config |= {"chat_template": chat_template} if chat_template else {}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return folder

    return make


@pytest.fixture(scope="session")
def make_tok(model_dir: Callable[..., Path]) -> Make:
    """Loads the tokenizer with the given special tokens and chat template; equal calls give one object."""
    known: dict[Any, tokenizer.Tokenizer] = {}

    def make(bos: str | None = "<bos>", eos: str = "<eos>", chat_template: str | None = None) -> tokenizer.Tokenizer:
        key = (bos, eos, chat_template)
        if key not in known:
            known[key] = tokenizer.load(model_dir(bos, eos, chat_template))
        return known[key]

    return make


@pytest.fixture(scope="session")
def tok(make_tok: Make) -> tokenizer.Tokenizer:
    """The small tokenizer with <bos> and <eos>."""
    return make_tok()


@pytest.fixture(scope="session")
def chat_of() -> Callable[..., records.Conversation]:
    """Makes a conversation from words: chat_of("user", "Hi", "assistant", "Hello")."""

    def make(*words: str, **row: Any) -> records.Conversation:
        turns = [{"role": role, "content": text} for role, text in zip(words[::2], words[1::2], strict=True)]
        found = records.from_row({"messages": turns, **row}, "chats.jsonl:7")
        assert isinstance(found, records.Conversation)
        return found

    return make


@pytest.fixture(scope="session")
def named(shared_data: Path) -> Callable[..., template.Template]:
    """A template of the data folder by name, with the special tokens of its family."""
    tokens = {
        "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
        "qwen": ("", "<|im_end|>"),
        "gemma": ("<bos>", "<eos>"),
        "phi3": ("<bos>", "<|endoftext|>"),
    }

    def make(name: str) -> template.Template:
        bos, eos = next(pair for family, pair in tokens.items() if name.startswith(family))
        text = (shared_data / "chat_templates" / f"{name}.jinja").read_text()
        return template.Template(name=name, text=text, bos_token=bos, eos_token=eos)

    return make
