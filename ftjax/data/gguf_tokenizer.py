"""The tokenizer of a GGUF file, made of its metadata with `tokenizers`; `transformers`' own way imports torch.

Two kinds are known. `gpt2` is byte-level BPE, whose merges the file holds and whose splitting `tokenizer.ggml.pre`
names: to add one, an entry in `SPLITS` with what the model's own tokenizer.json says. `llama` is SentencePiece BPE, of
which the file holds pieces and scores; the result is compared with SentencePiece itself before it is trusted.
"""

from typing import Any, NamedTuple

from ftjax import errors
from ftjax.data import gguf_file

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # values of tokenizer.ggml.token_type
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class Split(NamedTuple):
    """How text is cut before BPE: by a regex, or by GPT-2's own with every digit apart or not."""

    regex: str | None
    digits: bool
    nfc: bool
    ignore_merges: bool  # a piece that is a token is one, whatever the merges give


_LLAMA3 = Split(rf"{_WORDS}\p{{N}}{{1,3}}{_REST}", digits=False, nfc=False, ignore_merges=True)
SPLITS = {
    "gpt-2": Split(None, digits=False, nfc=False, ignore_merges=False),
    "smollm": Split(None, digits=True, nfc=False, ignore_merges=False),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": Split(rf"{_WORDS}\p{{N}}{_REST}", digits=False, nfc=True, ignore_merges=False),
}
SPACE = "\u2581"  # how SentencePiece writes a space
WAY_OUT = "use the model's Hugging Face folder, which has the tokenizer of its authors"


class Tokens(NamedTuple):
    """The vocabulary of a file: what is written, which kind it is, and what the special ones are for."""

    texts: list[str]
    kinds: list[int]
    special: dict[str, str]  # bos_token, eos_token, ... -> text
    stops: tuple[int, ...]  # ends of a turn beside the end token
    template: str | None
    starts: bool  # whether the model wants a BOS before every text


def tokens(file: gguf_file.File) -> Tokens:
    """Returns the vocabulary; one that is missing, unequal in its parts or not unique is a UserError."""
    meta = file.metadata
    texts = meta.get("tokenizer.ggml.tokens")
    if not isinstance(texts, list) or not texts:
        raise errors.UserError(f"{file.path}: has no tokenizer (tokenizer.ggml.tokens); {WAY_OUT}")
    kinds = meta.get("tokenizer.ggml.token_type") or [NORMAL] * len(texts)
    if len(kinds) != len(texts) or len(set(texts)) != len(texts):
        raise errors.UserError(
            f"{file.path}: {len(texts)} tokens, {len(set(texts))} of them different, with {len(kinds)} types; {WAY_OUT}"
        )
    special = {}
    for key, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = meta.get(f"tokenizer.ggml.{name}_token_id")
        if index is not None and not 0 <= index < len(texts):
            raise errors.UserError(f"{file.path}: {name}_token_id={index} is none of {len(texts)} tokens; {WAY_OUT}")
        if index is not None:
            special[f"{key}_token"] = texts[index]
    turns = (meta.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom"))
    stops = tuple(index for index in turns if index is not None and 0 <= index < len(texts))
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    usual = kind == "llama" or SPLITS.get(str(pre)) == _LLAMA3  # what the models of this kind do where nothing is said
    starts = bool(meta.get("tokenizer.ggml.add_bos_token", usual)) and "bos_token" in special
    return Tokens(texts, kinds, special, stops, meta.get("tokenizer.chat_template"), starts)


def byte_level(file: gguf_file.File) -> Any:
    """Returns the `PreTrainedTokenizerFast` of a file whose tokenizer is byte-level BPE."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    found = tokens(file)
    split = _split(file)
    ids = {text: index for index, text in enumerate(found.texts)}
    merges = [tuple(merge.split(" ", 1)) for merge in file.metadata.get("tokenizer.ggml.merges") or ()]
    bad = next((merge for merge in merges if len(merge) != 2 or "".join(merge) not in ids or merge[0] not in ids), None)
    if not merges or bad:
        raise errors.UserError(f"{file.path}: tokenizer.ggml.merges {f'has {bad}' if bad else 'is absent'}; {WAY_OUT}")
    core = tokenizers.Tokenizer(models.BPE(ids, merges, ignore_merges=split.ignore_merges))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split.regex is None)
    first: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split.digits else []
    if split.regex is not None:
        first.append(pre_tokenizers.Split(tokenizers.Regex(split.regex), "isolated"))
    core.pre_tokenizer = pre_tokenizers.Sequence([*first, plain]) if first else plain
    core.decoder = decoders.ByteLevel()
    if split.nfc:
        core.normalizer = normalizers.NFC()
    return _finished(core, found, normalized=False)


def _split(file: gguf_file.File) -> Split:
    pre = file.metadata.get("tokenizer.ggml.pre")
    if pre not in SPLITS:
        known = ", ".join(SPLITS)
        raise errors.UserError(
            f"{file.path}: tokenizer.ggml.pre={pre!r} is not implemented (known: {known}); {WAY_OUT}"
        )
    return SPLITS[pre]


def add(core: Any, found: Tokens, *, normalized: bool) -> None:
    """Makes the tokens that no text merges into known to a tokenizer: control ones, and those that users defined.

    `normalized` says that the latter are looked for after the normalizer, as SentencePiece does.
    """
    import tokenizers

    for kind in (CONTROL, USER):
        added = [
            tokenizers.AddedToken(text, normalized=normalized and kind == USER, special=kind == CONTROL)
            for text, own in zip(found.texts, found.kinds, strict=True)
            if own == kind
        ]
        core.add_special_tokens(added) if kind == CONTROL else core.add_tokens(added)


def begin(core: Any, found: Tokens) -> None:
    """Makes a tokenizer put the BOS first where the model wants it: in `transformers`, for ftjax adds nothing."""
    from tokenizers import processors

    if found.starts:
        bos = found.special["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, found.texts.index(bos))]
        )


def _finished(core: Any, found: Tokens, *, normalized: bool) -> Any:
    """Returns the `PreTrainedTokenizerFast` of a tokenizer, with added tokens, BOS and chat template."""
    import transformers

    add(core, found, normalized=normalized)
    begin(core, found)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, **found.special
    )
    made.chat_template = found.template
    return made


def pieces(file: gguf_file.File) -> Any:
    """Returns the `PreTrainedTokenizerFast` of a file whose tokenizer is SentencePiece BPE, without the first space.

    SentencePiece joins the neighbours whose piece has the highest score, so a merge ranks as the score of what it
    makes. (`transformers`' converter ranks by the place in the vocabulary, which differs where models have runs of
    spaces: Mistral's have the lowest score of all and come first.)
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers

    found = tokens(file)
    scores = _scores(file, found)
    ids = {text: index for index, text in enumerate(found.texts)}
    ranked = []
    for text, score, kind in zip(found.texts, scores, found.kinds, strict=True):
        cuts = range(1, len(text)) if kind == NORMAL else ()
        ranked += [(-score, ids[a], ids[b]) for a, b in ((text[:k], text[k:]) for k in cuts) if a in ids and b in ids]
    merges = [(found.texts[a], found.texts[b]) for _, a, b in sorted(ranked)]
    unknown = found.texts[found.kinds.index(UNKNOWN)] if UNKNOWN in found.kinds else None
    core = tokenizers.Tokenizer(
        models.BPE(ids, merges, byte_fallback=BYTE in found.kinds, fuse_unk=True, unk_token=unknown)
    )
    core.normalizer = normalizers.Replace(" ", SPACE)
    strip = [decoders.Strip(" ", 1, 0)] if first_space(file) else []
    core.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return _finished(core, found, normalized=True)


def first_space(file: gguf_file.File) -> bool:
    """Returns whether a SentencePiece model puts a space before a text."""
    return bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))


def sentencepiece_model(file: gguf_file.File) -> Any:
    """Returns the SentencePiece model that pieces and scores came from, to compare `pieces` with."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as proto

    found = tokens(file)
    model = proto.ModelProto()
    for text, score, kind in zip(found.texts, _scores(file, found), found.kinds, strict=True):
        model.pieces.add(piece=text, score=score, type=kind)
    spec, rules = model.trainer_spec, model.normalizer_spec
    spec.model_type, spec.vocab_size, spec.byte_fallback = spec.BPE, len(found.texts), BYTE in found.kinds
    rules.name, rules.escape_whitespaces, rules.add_dummy_prefix = "identity", True, first_space(file)
    rules.remove_extra_whitespaces = bool(file.metadata.get("tokenizer.ggml.remove_extra_whitespaces", False))
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def _scores(file: gguf_file.File, found: Tokens) -> list[float]:
    scores = file.metadata.get("tokenizer.ggml.scores") or []
    if len(scores) != len(found.texts):
        raise errors.UserError(f"{file.path}: {len(found.texts)} tokens with {len(scores)} scores; {WAY_OUT}")
    return scores
