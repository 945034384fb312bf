"""What a merged reward model says beside its weights, so that AutoModelForSequenceClassification gives its scores."""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any, NamedTuple

from ftjax.checkpoint import peft, shards
from ftjax.data import tokenizer
from ftjax.errors import UserError

# The class of transformers by model_type; tests/parity compares it with transformers' own table.
_CLASSES = {
    "gemma2": "Gemma2ForSequenceClassification",
    "gemma3_text": "Gemma3TextForSequenceClassification",
    "llama": "LlamaForSequenceClassification",
    "mistral": "MistralForSequenceClassification",
    "mixtral": "MixtralForSequenceClassification",
    "olmo2": "Olmo2ForSequenceClassification",
    "phi3": "Phi3ForSequenceClassification",
    "qwen2": "Qwen2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
    "qwen3_moe": "Qwen3MoeForSequenceClassification",
    "smollm3": "SmolLM3ForSequenceClassification",
}


class Facts(NamedTuple):
    """The token that pads, which must end no text: transformers reads a score at the last token that is another."""

    pad_id: int
    pad_token: str
    normalisation: str | None  # the text of score.json


def facts(tok: tokenizer.Tokenizer, stop_ids: Sequence[int], adapter_dir: Path | None) -> Facts:
    """Returns the facts of a reward model: the tokenizer's padding, or where a text may end in that, another token.

    The normalisation is that beside the adapter, if there is one.
    """
    free = sorted(token for token in tok.special_ids if token not in stop_ids and token != tok.bos_id)
    pad = tok.pad_id if tok.pad_id not in stop_ids else next(iter(free), None)
    if pad is None:
        raise UserError(
            f"the tokenizer pads with {tok.token(tok.pad_id)!r}, in which a text may end, and has no special token for "
            "it instead; a merged reward model would read scores one token early: add a padding token, or export the "
            "adapter (--format peft)"
        )
    file = None if adapter_dir is None else adapter_dir / peft.SCORE
    text = file.read_text(encoding="utf-8") if file is not None and file.is_file() else None
    return Facts(pad, tok.token(pad), text)


def architecture(family: str) -> str:
    """Returns the class of transformers that reads a reward model of a family; UserError where there is none."""
    if family not in _CLASSES:
        raise UserError(
            f"transformers has no class for sequence classification on {family}; known: {', '.join(sorted(_CLASSES))}; "
            "export the adapter instead (--format peft)"
        )
    return _CLASSES[family]


def config(hf: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Returns a config.json that says one label, where the language model's said none."""
    told = {
        "architectures": [architecture(hf["model_type"])],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "pad_token_id": facts.pad_id,
    }
    return {**hf, **told}


def write(folder: Path, facts: Facts) -> None:
    """Writes the padding into the tokenizer's files, and the normalisation beside the weights."""
    file = folder / "tokenizer_config.json"
    about = shards.read_json(file, what="the config of a tokenizer") if file.is_file() else {}
    if _text(about.get("pad_token")) != facts.pad_token:
        file.write_text(json.dumps(about | {"pad_token": facts.pad_token}, indent=2) + "\n", encoding="utf-8")
    special = folder / "special_tokens_map.json"
    if special.is_file():  # of old checkpoints; it goes before the other file
        known = shards.read_json(special, what="the special tokens of a tokenizer")
        special.write_text(json.dumps(known | {"pad_token": facts.pad_token}, indent=2) + "\n", encoding="utf-8")
    if facts.normalisation is not None:
        (folder / peft.SCORE).write_text(facts.normalisation, encoding="utf-8")


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
