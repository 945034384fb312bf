"""A config -> how well a model predicts one long text, read through a window that slides over it.

A composition root like `evaluation`: `build` checks everything without weights, `measure` reads them.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

from ftjax import experiment, inference
from ftjax.checkpoint import hf_import
from ftjax.data import files, tokenizer
from ftjax.errors import UserError
from ftjax.evals import perplexity, sliding
from ftjax.models.config import ModelConfig

RANGES: dict[str, experiment.Range] = {
    "data.tokens": (lambda v: v >= 0, "at least 0 (0: the whole text)"),
    "text.context": (lambda v: v >= 2, "at least 2"),
    "text.stride": experiment.COUNT,
    "text.rows": experiment.COUNT,
}
CHOICES = {name: experiment.CHOICES[name] for name in ("model.dtype", "model.weights")} | {
    "text.bos": ("tokenizer", "always", "never")
}


@dataclasses.dataclass(frozen=True)
class LongText:
    """Everything that measuring needs, but for weights."""

    config: dict[str, Any]
    made: inference.Made
    model_config: ModelConfig
    ids: list[int]
    protocol: dict[str, Any]

    @property
    def name(self) -> str:
        """Returns what is measured, for the name of a folder."""
        model = self.config["model"]
        return f"text-{Path(model['run'] or model['adapter'] or model['path']).name}"


def build(config: Any) -> LongText:
    """Returns the evaluation of a config; whatever is wrong with it is a UserError here, before weights are read."""
    c = experiment.plain(config)
    experiment.check(c, RANGES, CHOICES)
    d, t = c["data"], c["text"]
    made = inference.made_of(c["model"], template="", quant=c["quant"])
    folder = inference.folder_of(made.model)
    model_config = dataclasses.replace(hf_import.read_config(folder), dtype=c["model"]["dtype"])
    if t["context"] > model_config.context:
        raise UserError(
            f"config.text.context is {t['context']}, but the model reads {model_config.context} tokens; give that or "
            "less"
        )
    if t["stride"] > t["context"]:
        raise UserError(
            f"config.text.stride is {t['stride']}, more than config.text.context, {t['context']}: tokens between two "
            f"windows would never be read; give a stride from 1 to {t['context']}"
        )
    if not d["path"]:
        raise UserError("config.data.path is empty; name a text file (data=FILE.txt behind the config file)")
    tok = tokenizer.load(folder)
    tokenizer.check_vocabulary(tok, model_config.vocab_size)
    text = files.text(d["path"])
    found = tok.encode(text)
    kept = found.ids[: d["tokens"] or None]
    if len(kept) < len(found.ids):
        text = text[: found.offsets[len(kept) - 1][1]]
    front = _front(tok, t["bos"])
    if len(front) + len(kept) < 2:
        raise UserError(f"{d['path']}: {len(kept)} tokens; a text of at least 2 has one that can be predicted")
    size = perplexity.units([text])
    protocol = {
        "context": t["context"],
        "stride": t["stride"],
        "least_context": t["context"] - t["stride"],  # of a token behind the first window
        "template": None,
        "begins_with": tok.token(front[0]) if front else None,
        "tokens": len(kept),
        "words": size.words,
        "bytes": size.bytes,
    }
    return LongText(c, made, model_config, [*front, *kept], protocol)


def _front(tok: tokenizer.Tokenizer, bos: str) -> list[int]:
    if bos == "never" or (bos == "tokenizer" and not tok.front):
        return []
    if tok.bos_id is None:
        raise UserError("config.text.bos is 'always', but the tokenizer has no BOS token; set it to never")
    return [tok.bos_id]


def measure(x: LongText) -> dict[str, Any]:
    """Returns what evaluation.json holds.

    Perplexities by word and byte take a token that was not counted for an average one.
    """
    t = x.config["text"]
    model = inference.load_made(x.made, dtype=x.config["model"]["weights"])
    found = sliding.measure(
        model.params, x.model_config, x.ids, context=t["context"], stride=t["stride"], rows=t["rows"]
    )
    tokens = x.protocol["tokens"]
    size = perplexity.Units(words=x.protocol["words"], bytes=x.protocol["bytes"])
    return {
        "model": {"path": x.made.model, "hash": hf_import.content_hash(model.folder), "adapter": x.made.adapter},
        "data": {"path": x.config["data"]["path"], "sha256": files.digest(x.config["data"]["path"])},
        "protocol": x.protocol | {"counted": found.tokens},
        "metrics": perplexity.numbers(found.total / found.tokens * tokens, tokens, size),
    }


def in_words(protocol: Mapping[str, Any]) -> str:
    """Returns the protocol of a measurement as a sentence."""
    return (
        f"{protocol['counted']:,} of {protocol['tokens']:,} tokens, each once, in windows of {protocol['context']}, "
        f"{protocol['stride']} apart: from the second one on after {max(protocol['least_context'], 1)} or more others; "
        f"no template, {protocol['begins_with'] or 'nothing'} in front"
    )
