"""The tokenizer of a model folder: text -> ids with character offsets, never adding a special token by itself.

`load` takes whatever `transformers` takes (tokenizer.json, vocab.json with merges.txt) and a lone SentencePiece
`tokenizer.model`, for which the converted tokenizer is compared with SentencePiece itself before it is trusted. The
tokenizer of a GGUF file is made of its metadata (`gguf_tokenizer`).
"""

from collections.abc import Iterator, Sequence
import copy
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, overload

from ftjax import errors
from ftjax.data import files, gguf_file, gguf_tokenizer

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
PROBES = (
    "Once upon a time, there was 42.",
    " leading space",
    "two  spaces\tand\nlines\n\n",
    "naïve 漢字 🙂",
    "Don't!",
    "x = f(y)\n    return z",
)


Offset = tuple[int, int]


class Offsets(Sequence[Offset]):
    """The offsets of an encoding, each made when it is asked for.

    `encode` looks at the last ones only, and a list of all of them is a quarter of the time that encoding a file takes.
    """

    def __init__(self, core: Any) -> None:
        self._core = core

    def __len__(self) -> int:
        return len(self._core)

    def __iter__(self) -> Iterator[Offset]:
        return iter(self._core.offsets)

    def __eq__(self, other: object) -> bool:
        return list(self) == other

    @overload
    def __getitem__(self, index: int) -> Offset: ...

    @overload
    def __getitem__(self, index: slice) -> list[Offset]: ...

    def __getitem__(self, index: int | slice) -> Offset | list[Offset]:
        if isinstance(index, slice):
            return self._core.offsets[index]
        place = index if index >= 0 else index + len(self)
        if not 0 <= place < len(self):
            raise IndexError(f"offset {index} of {len(self)}")
        return self._core.token_to_chars(place)


class Encoding(NamedTuple):
    """Token ids of a text and the characters [start, end) of each; tokens that share one character share its range."""

    ids: list[int]
    offsets: Sequence[Offset]


class Tokenizer:
    """A fast Hugging Face tokenizer, of which special tokens in the text are recognised but none is added."""

    def __init__(self, hf: Any, *, stops: Sequence[int] = (), dummy_prefix: bool = False) -> None:
        """Wraps `hf`; `dummy_prefix` puts the space before a text that SentencePiece models were trained with."""
        self._dummy_prefix = dummy_prefix
        self.hf = hf
        self._core = hf.backend_tokenizer
        self._core.no_truncation()
        self._core.no_padding()
        vocabulary = self._core.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values()) + 1
        self.bos_token: str | None = hf.bos_token
        self.eos_token: str | None = hf.eos_token
        self.bos_id: int | None = hf.bos_token_id
        self.eos_id: int | None = hf.eos_token_id
        # Padding equal to the end token does no harm: masks come from lengths, never from ids.
        self.pad_id: int = next(i for i in (hf.pad_token_id, self.eos_id, 0) if i is not None)
        added = self._core.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(
            {i for i, token in added.items() if token.special} | set(hf.all_special_ids)
        )
        self.added_ids: frozenset[int] = self.special_ids | frozenset(added)  # never made by merging text
        self._special_texts: tuple[str, ...] = tuple(self.token(i) for i in self.special_ids)
        own = () if self.eos_id is None else (self.eos_id,)
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((*own, *stops)))
        template = getattr(hf, "chat_template", None)
        if isinstance(template, dict):  # several by name, of which "default" is meant for chats
            template = template.get("default")
        self.chat_template: str | None = template if isinstance(template, str) else None
        self.fingerprint: str = self._fingerprint()

    def encode(self, text: str) -> Encoding:
        """Returns the ids and offsets of a text that begins a sequence."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Returns `encode` of each text, on all cores."""
        if not self._dummy_prefix:
            return self._raw(texts)
        at = [self._prefix_place(text) for text in texts]
        spaced = [text if p is None else f"{text[:p]} {text[p:]}" for text, p in zip(texts, at, strict=True)]
        return [
            one if p is None else Encoding(one.ids, [(a - (a > p), b - (b > p)) for a, b in one.offsets])
            for one, p in zip(self._raw(spaced), at, strict=True)
        ]

    def continue_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Returns the encodings of texts that go on after others: without the space that SentencePiece puts first."""
        if self._dummy_prefix or not self._anchor:
            return self._raw(texts)
        width = len(self._anchor)
        found = []
        for text, encoding in zip(texts, self._raw([self._anchor + text for text in texts]), strict=True):
            first = next((i for i, (_, end) in enumerate(encoding.offsets) if end > width), len(encoding.ids))
            if first < len(encoding.ids) and encoding.offsets[first][0] < width:
                found.append(self.encode(text))  # the anchor merged with the text: take the text alone
                continue
            offsets = [(start - width, end - width) for start, end in encoding.offsets[first:]]
            found.append(Encoding(encoding.ids[first:], offsets))
        return found

    def _raw(self, texts: Sequence[str]) -> list[Encoding]:
        return [Encoding(e.ids, Offsets(e)) for e in self._core.encode_batch(list(texts), add_special_tokens=False)]

    def _prefix_place(self, text: str) -> int | None:
        """Returns where the dummy space goes: first, but after a BOS; nowhere before another special token."""
        place = len(self.bos_token) if self.bos_token and text.startswith(self.bos_token) else 0
        return None if not text or text.startswith(self._special_texts, place) else place

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Returns the text of the ids, with or without the special tokens."""
        return self._core.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def token(self, index: int) -> str:
        """Returns the vocabulary's own writing of a token id."""
        return self._core.id_to_token(int(index)) or f"<{index}>"

    def save(self, folder: Path) -> None:
        """Writes what transformers' AutoTokenizer loads; SentencePiece's first space becomes a normalizer."""
        import tokenizers

        made = copy.deepcopy(self.hf)
        if self._dummy_prefix:
            core = made.backend_tokenizer
            core.normalizer = tokenizers.normalizers.Sequence(
                [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
            )
        made.save_pretrained(str(folder))
        about = folder / "tokenizer_config.json"  # version 5 writes its own name of the class, which no other knows
        facts = json.loads(about.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        about.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @functools.cached_property
    def front(self) -> list[int]:
        """Returns the BOS where the tokenizer, asked with special tokens, puts one before a text, else nothing."""
        first = self.hf.encode("a")[:1]
        return first if first == [self.bos_id] else []

    @functools.cached_property
    def _anchor(self) -> str:
        plain, anchored = self._raw(["Word", "\nWord"])
        return "" if anchored.ids[-len(plain.ids) :] == plain.ids else "\n"

    def _fingerprint(self) -> str:
        specials = sorted(self.hf.special_tokens_map.items(), key=str)
        whole = [self._core.to_str(), specials, self.chat_template, self.stop_ids, self._dummy_prefix]
        return hashlib.sha256(json.dumps(whole, default=str).encode()).hexdigest()


def load(model_dir: str | Path) -> Tokenizer:
    """Returns the tokenizer of a local model folder or a GGUF file; a UserError when there is none or no fast one."""
    single = gguf_file.find(model_dir)
    if single is not None:
        return _gguf(gguf_file.read(single))
    folder = files.existing(model_dir)
    if not folder.is_dir():
        raise errors.UserError(f"{folder}: is a file; name the model folder that holds {FILES[0]}")
    present = [name for name in FILES if (folder / name).exists()]
    if not present:
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8])
        raise errors.UserError(
            f"{folder}: no tokenizer there ({' or '.join(FILES)}); the folder holds {inside or 'nothing'}"
        )
    try:
        made = _transformers(folder, present[0], _generation_stops(folder))
    except errors.UserError:
        raise
    except Exception as bad:  # transformers raises many kinds for a damaged file, all meaning the same to the user
        reason = (str(bad).strip().splitlines() or [type(bad).__name__])[0]
        raise errors.UserError(f"{folder}: transformers cannot read {present[0]} ({reason})") from bad
    if not getattr(made.hf, "is_fast", False):
        raise errors.UserError(f"{folder}: only a slow tokenizer; save it as tokenizer.json (a fast tokenizer) first")
    return made


def _transformers(folder: Path, kind: str, stops: Sequence[int]) -> Tokenizer:
    # Without torch, importing transformers prints that models are missing; only its tokenizers are wanted here.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    if kind == "tokenizer.model":
        return _sentencepiece(folder, stops)
    if kind == "vocab.json":
        hf = transformers.GPT2TokenizerFast.from_pretrained(str(folder), local_files_only=True)
    else:
        try:
            hf = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception:
            # No config.json, or a class that is unknown to this version: the file says all that is needed.
            hf = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    return Tokenizer(hf, stops=stops)


def _sentencepiece(folder: Path, stops: Sequence[int]) -> Tokenizer:
    """Returns the converted SentencePiece model, which must give the ids that SentencePiece gives.

    AutoTokenizer converts a lone tokenizer.model without its dummy prefix ("Once" instead of "▁Once"),
    LlamaTokenizerFast without it before a text that begins with a space. So `Tokenizer` puts the prefix itself.
    """
    import sentencepiece
    import tokenizers
    import transformers

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    hf = transformers.LlamaTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    hf.backend_tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    hf.backend_tokenizer.pre_tokenizer = None
    for dummy_prefix in (True, False):
        made = Tokenizer(hf, stops=stops, dummy_prefix=dummy_prefix)
        if [made.encode(text).ids for text in PROBES] == [model.encode(text) for text in PROBES]:
            return made
    raise errors.UserError(
        f"{folder}: tokenizer.model converts to other ids than SentencePiece gives; add a tokenizer.json made by "
        "the model's own authors"
    )


def _gguf(file: gguf_file.File) -> Tokenizer:
    """Returns the tokenizer that the metadata of a GGUF file describes."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    kind = file.metadata.get("tokenizer.ggml.model")
    found = gguf_tokenizer.tokens(file)
    if kind == "gpt2":
        return Tokenizer(gguf_tokenizer.byte_level(file), stops=found.stops)
    if kind != "llama":
        raise errors.UserError(
            f"{file.path}: tokenizer.ggml.model={kind!r} is not implemented (gpt2, llama are); {gguf_tokenizer.WAY_OUT}"
        )
    hf, model = gguf_tokenizer.pieces(file), gguf_tokenizer.sentencepiece_model(file)
    made = Tokenizer(hf, stops=found.stops, dummy_prefix=gguf_tokenizer.first_space(file))
    if [made.encode(text).ids for text in PROBES] != [model.encode(text) for text in PROBES]:
        raise errors.UserError(
            f"{file.path}: its tokenizer converts to other ids than SentencePiece gives; {gguf_tokenizer.WAY_OUT}"
        )
    return made


def _generation_stops(folder: Path) -> list[int]:
    """Returns the end tokens that generation_config.json names: chat models stop at more than one."""
    path = folder / "generation_config.json"
    if not path.exists():
        return []
    try:
        stops = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError):
        raise errors.UserError(f"{path}: broken JSON; repair or remove the file") from None
    return [stops] if isinstance(stops, int) else [int(stop) for stop in stops or []]


def check_vocabulary(tokenizer: Tokenizer, model_vocab_size: int) -> None:
    """Raises a UserError when the tokenizer has ids beyond the rows of the model's embedding."""
    if tokenizer.vocab_size > model_vocab_size:
        last = tokenizer.vocab_size - 1
        raise errors.UserError(
            f"the tokenizer has ids up to {last} ({tokenizer.token(last)!r}), but the model's vocabulary has "
            f"{model_vocab_size} rows; use the tokenizer of this model, or a model with a larger embedding"
        )
