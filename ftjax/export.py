"""What a run or adapters made -> a folder that others serve: an adapter in PEFT's format, or a whole model.

A composition root like `run`: `of_run`, `of_model`, `combined` and `difference` say what is to be written, and check
it, without weights; `peft` and `merged` write it.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import datetime
import filecmp
import itertools
import json
import math
from pathlib import Path
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax import inference
from ftjax import tree as trees
from ftjax.adapters import arithmetic, attach
from ftjax.checkpoint import folders, hf_export, hf_import, reward_folder, shards
from ftjax.checkpoint import peft as peft_format
from ftjax.data import chat, encode, records, template, tokenizer
from ftjax.errors import UserError
from ftjax.models import decoder, params
from ftjax.models.config import ModelConfig
from ftjax.runs import card, provenance

BASES = ("dequant", "original")  # what an adapter of a quantised base is merged into
COMBINATIONS = {"sum": arithmetic.weighted_sum, "linear": arithmetic.linear}
_PROBE = (4, 48)  # rows and tokens on which two bases are compared
Say = Callable[[str], None]


class Part(NamedTuple):
    """One adapter of a combination."""

    folder: Path
    weight: float


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be exported, without weights."""

    model: Path  # the base, or after full fine-tuning the model itself
    quant: inference.Quant  # how the base was held while the adapters were trained
    template: str | None  # name of the chat template where it is not the tokenizer's own
    parts: tuple[Part, ...]
    run: Path | None  # whose card it gets
    combination: str = "sum"
    rank: int | None = None  # what the adapter is truncated to
    minus: Path | None = None  # the adapter is `model` less this one

    @property
    def is_plain(self) -> bool:
        """True where an adapter goes out as it came in."""
        return len(self.parts) == 1 and self.parts[0].weight == 1 and self.rank is None and self.minus is None

    @property
    def base(self) -> Path:
        """The model that the adapter goes on."""
        return self.minus or self.model


def of_run(run: str | Path, *, rank: int | None) -> Asked:
    """Returns what a finished run made; UserError where it is no run, not at its end, or its base has changed."""
    made = inference.made_by(run)
    parts = (Part(Path(made.adapter), 1.0),) if made.adapter else ()
    _check_rank(str(run), parts, rank)
    return Asked(inference.folder_of(made.model), made.quant, made.template, parts, Path(run).expanduser(), rank=rank)


def of_model(model: str, *, adapter: str | None, template_name: str | None, rank: int | None) -> Asked:
    """Returns a model folder with, if given, a PEFT adapter."""
    parts = (Part(_adapter_folder(adapter), 1.0),) if adapter else ()
    _check_rank(model, parts, rank)
    return Asked(inference.folder_of(model), inference.Quant(), template_name, parts, None, rank=rank)


def _check_rank(name: str, parts: tuple[Part, ...], rank: int | None) -> None:
    if rank is not None and not parts:
        raise UserError(f"--rank {rank} cuts an adapter, and {name} has none; --minus makes one of two models")


def difference(model: str, *, minus: str, template_name: str | None, rank: int | None) -> Asked:
    """Returns the adapter of `rank` that takes one full model to another."""
    if rank is None:
        raise UserError("the difference of two models has full rank; say what it is to be cut to with --rank")
    folder, base = inference.folder_of(model), inference.folder_of(minus)
    return Asked(folder, inference.Quant(), template_name, (), None, rank=rank, minus=base)


def combined(spec: str, *, model: str | None, template_name: str | None, rank: int | None, combination: str) -> Asked:
    """Returns a combination "a=0.7,b=0.3" of runs or PEFT folders over one base, which `model` names if they do not.

    Adapters of different bases, or of one base in different bits, and weights that are no numbers are UserErrors.
    """
    parts: list[Part] = []
    bases: dict[str, str | None] = {}
    quants: dict[str, inference.Quant] = {}
    templates: dict[str, str | None] = {}
    for piece in filter(None, (piece.strip() for piece in spec.split(","))):
        name, weight = _weight(piece)
        folder = Path(name).expanduser()
        if (folder / "config.json").is_file() and not (folder / peft_format.FILES[0]).is_file():
            made = inference.made_by(folder, base=model)
            if made.adapter is None:
                raise UserError(f"{name} trained all weights; --combine takes adapters (--minus makes one of a model)")
            parts.append(Part(Path(made.adapter), weight))
            bases[name], quants[name], templates[name] = model or made.model, made.quant, made.template
        else:
            parts.append(Part(_adapter_folder(name), weight))
            facts = shards.read_json(folder / peft_format.FILES[0], what="the config of a PEFT adapter")
            bases[name] = facts.get("base_model_name_or_path")
    if not parts:
        raise UserError(f"--combine {spec!r} names no adapter; give DIR=WEIGHT,DIR=WEIGHT")
    if len(set(quants.values())) > 1:
        shown = ", ".join(f"{name}: {quant.format}" for name, quant in quants.items())
        raise UserError(f"the adapters were trained on the base in different bits ({shown}); they have no common base")
    if template_name is None and len(set(templates.values())) > 1:
        shown = ", ".join(f"{name}: {found or 'the own one'}" for name, found in templates.items())
        raise UserError(f"the runs have different chat templates ({shown}); choose one with --template")
    return Asked(
        model=_common_base(bases, model),
        quant=next(iter(quants.values()), inference.Quant()),
        template=template_name or next(iter(templates.values()), None),
        parts=tuple(parts),
        run=None,
        combination=combination,
        rank=rank,
    )


def _weight(piece: str) -> tuple[str, float]:
    name, equals, text = piece.rpartition("=")
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (equals and name and math.isfinite(weight)):
        raise UserError(f"--combine: {piece!r} must be DIR=WEIGHT with a number, for example runs/a=0.7")
    return name, weight


def _adapter_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not (folder / peft_format.FILES[0]).is_file():
        raise UserError(f"{folder} is neither a run nor a PEFT folder: there is no {peft_format.FILES[0]}")
    return folder


def _common_base(bases: Mapping[str, str | None], model: str | None) -> Path:
    """Returns the base that all adapters are for: one path, or paths of equal content."""
    named = {name: base for name, base in bases.items() if base and _exists(base)}
    if model is None:
        lacking = [name for name in bases if name not in named]
        if lacking:
            raise UserError(
                f"{lacking[0]} names its base as {bases[lacking[0]]!r}, which is not here; give --model DIR"
            )
        model = next(iter(named.values()))
    folder = inference.folder_of(model)
    for name, base in named.items():
        other = inference.folder_of(base)
        if other.resolve() != folder.resolve() and hf_import.content_hash(other) != hf_import.content_hash(folder):
            raise UserError(f"{name} was trained on {other}, not on {folder}; adapters of different bases have no sum")
    return folder


def _exists(base: str) -> bool:
    try:
        inference.folder_of(base)
    except UserError:
        return False
    return True


class _Words(NamedTuple):
    """What a model needs beside weights to talk."""

    tok: tokenizer.Tokenizer
    made: template.Template | None
    text: str | None  # of the chat template, where it is not the base's own
    stop_ids: tuple[int, ...]


def _words(asked: Asked, config: ModelConfig) -> _Words:
    tok = tokenizer.load(asked.model)
    tokenizer.check_vocabulary(tok, config.vocab_size)
    made = template.load(asked.template, tok) if asked.template or tok.chat_template else None
    text = made.text if made is not None and asked.template else None
    return _Words(tok, made, text, chat.stop_ids(tok, made))


def peft(asked: Asked, out: str | Path, *, command: str, say: Say) -> None:
    """Writes an adapter folder that PEFT and vLLM load; with tokenizer and template where the template was changed."""
    if not asked.parts and asked.minus is None:
        who = f"{asked.run} trained all weights" if asked.run else f"{asked.model} is a whole model"
        raise UserError(f"{who}, so there is no adapter; use --format merged")
    config = hf_import.read_config(asked.base)
    words = _words(asked, config)
    adapters, note = (
        (None, None) if asked.is_plain else _adapters(asked, params.abstract(config, "float32"), config, say)
    )
    with folders.written(out) as beside:
        if adapters is None:
            source = asked.parts[0].folder
            shutil.copytree(source, beside, dirs_exist_ok=True)
            compared = filecmp.cmpfiles(source, beside, peft_format.FILES[:2], shallow=False)
            if compared[1] or compared[2]:
                raise UserError(
                    f"{out}: {compared[1] + compared[2]} read back is not what was written; is the disk sound?"
                )
        else:
            peft_format.save(beside, jax.device_get(adapters), config, base_name=str(asked.base))
            peft_format.load(beside, params.abstract(config, "float32"), config)
        if words.text is not None:
            hf_export.copy_tokenizer(asked.base, beside, words.text)
        if asked.run is None or note is not None:
            kind = "reward_adapter" if peft_format.is_reward(beside) else "adapter"
            (beside / "README.md").write_text(_card(asked, kind, words, note, command), encoding="utf-8")


def merged(
    asked: Asked,
    out: str | Path,
    *,
    dtype: str | None,
    base: str | None,
    max_shard_bytes: int,
    command: str,
    say: Say,
) -> None:
    """Writes a whole model that transformers loads, in `dtype` (None: float32).

    `base` says what the adapter of a quantised base is merged into: the weights as the quantised base has them
    ("dequant", as it was trained, and the default there) or as the checkpoint has them ("original"); the largest
    difference of their logits is told. It is never merged into packed bits.
    """
    quantised = asked.quant.format != "none"
    if base is not None and not quantised:
        raise UserError(f"--base {base} is for an adapter of a quantised base; this one has its base as it is stored")
    config = hf_import.read_config(asked.base)
    words = _words(asked, config)
    folders.refuse_content(out)
    held = hf_import.stored_dtype(asked.base)
    quants = {"dequant": asked.quant, "original": inference.Quant()}
    chosen, other = base or BASES[0], BASES[0 if base == BASES[1] else 1]
    there = _logits(asked, quants[other], held, words, say) if quantised else None
    _, loaded = _load(asked, quants[chosen] if quantised else inference.Quant(), held)
    adapters, note = _adapters(asked, loaded, config, say)
    model = attach.attach(loaded, adapters)
    reward, what, kind = None, "logits", "merged"
    if model.score is not None:
        reward_folder.architecture(config.family)
        reward = reward_folder.facts(words.tok, words.stop_ids, asked.parts[0].folder)
        what, kind = "scores", "reward_merged"
    if there is not None:
        gap = np.abs(_probe(asked, model, config, words) - there).max()
        note = f"{note or 'merged'} into the {chosen} weights of the {asked.quant.format} base"
        say(f"merging into the {chosen} weights; {what} of the {other} ones differ by at most {gap:.3g}")
    hf_export.save(
        out,
        model,
        config,
        asked.base,
        dtype or "float32",
        max_shard_bytes=max_shard_bytes,
        stop_ids=words.stop_ids,
        template=words.text,
        card=_card(asked, kind, words, note, command),
        reward=reward,
    )


def _load(asked: Asked, quant: inference.Quant, dtype: str) -> tuple[ModelConfig, Any]:
    return hf_import.load(asked.base, quant.format, dtype, leaves=quant.leaves, group=quant.group)


def _adapters(asked: Asked, base: Any, config: ModelConfig, say: Say) -> tuple[Any, str | None]:
    """Returns the adapters to attach to the base, and what was done to them."""
    if asked.minus is not None:
        return _difference(asked, say)
    if not asked.parts:
        return None, None
    loaded = [peft_format.load(part.folder, base, config) for part in asked.parts]
    if asked.is_plain:
        return loaded[0], None
    weights = [part.weight for part in asked.parts]
    notes = []
    if len(loaded) == 1 and weights[0] == 1:
        adapters = loaded[0]
    else:
        adapters = COMBINATIONS[asked.combination](loaded, weights)
        shown = " + ".join(f"{part.weight:g} x {part.folder}" for part in asked.parts)
        notes.append(f"{asked.combination} of {shown}")
    if asked.rank is not None:
        adapters, errors = arithmetic.truncate(adapters, asked.rank)
        told = _told(asked.rank, errors, arithmetic.total_error(adapters, errors))
        say(told)
        notes.append(told)
    return adapters, "; ".join(notes)


def _difference(asked: Asked, say: Say) -> tuple[Any, str]:
    assert asked.minus is not None
    assert asked.rank is not None
    one, other = (hf_import.read_config(folder) for folder in (asked.model, asked.minus))
    if one != other:
        raise UserError(f"{asked.model} and {asked.minus} are models of different shape; their difference has none")
    tuned, base = (
        hf_import.load(folder, dtype=hf_import.stored_dtype(folder))[1] for folder in (asked.model, asked.minus)
    )
    adapters, errors = arithmetic.difference(tuned, base, asked.rank)
    if not trees.paths(adapters):
        raise UserError(
            f"{asked.model} and {asked.minus} have the same projections; there is nothing to make a LoRA of"
        )
    lost = [path for path, error in errors.items() if error == 1]
    kept = {path: error for path, error in errors.items() if error < 1}
    told = _told(asked.rank, kept, arithmetic.total_error(adapters, kept))
    told += f"; lost, because they are no projections: {', '.join(lost)}" if lost else ""
    say(told)
    return adapters, f"{asked.model} less {asked.minus}: {told}"


def _told(rank: int, errors: Mapping[str, float], total: float) -> str:
    worst = max(errors, key=lambda path: errors[path])
    return f"rank {rank}: relative error {total:.3g} (Frobenius), at most {errors[worst]:.3g} ({worst})"


def _logits(asked: Asked, quant: inference.Quant, dtype: str, words: _Words, say: Say) -> np.ndarray:
    """Returns the logits of the model on the other base, which is let go before the one to write is read."""
    config, base = _load(asked, quant, dtype)
    adapters, _ = _adapters(asked, base, config, lambda _: None)
    say(f"compared with the base as {quant.format if quant.format != 'none' else 'stored'}")
    return _probe(asked, attach.attach(base, adapters), config, words)


def _probe(asked: Asked, model: Any, config: ModelConfig, words: _Words) -> np.ndarray:
    """Returns the logits of a few texts, or the scores of a reward model at each of their tokens; 0 on padding."""
    tokens, segments = probe_tokens(asked.run, config, words.tok, words.made)
    scores = lambda params, *given: decoder.hidden(params, *given) @ params.score
    run = jax.jit(decoder.logits if model.score is None else scores, static_argnums=2)
    found = run(model, tokens, dataclasses.replace(config, dtype="float32"), None, segments)
    return np.asarray(found) * (segments[..., None] > 0)


def probe_tokens(
    run: Path | None, config: ModelConfig, tok: tokenizer.Tokenizer, made: template.Template | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a few tokens and their segments: held-out questions and answers of the run, else fixed random ones."""
    rows, length = _PROBE
    length = min(length, config.max_position)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (rows, length)).astype(np.int32)
    segments = np.ones_like(tokens)
    file = None if run is None else run / "answers.jsonl"
    if file is None or not file.is_file():
        return tokens, segments
    with file.open(encoding="utf-8") as lines:
        asked = [json.loads(line) for line in itertools.islice(lines, rows)]
    for row, one in enumerate(asked):
        question = [records.Message(role="user", content=one["prompt"])]
        start = tok.encode(one["prompt"]).ids if made is None else encode.prompt_ids(question, tok, made=made, tools=())
        ids = [*start, *tok.encode(one["reference"]).ids][:length] or [0]
        tokens[row, : len(ids)], segments[row] = ids, 0
        segments[row, : len(ids)] = 1
    return tokens, segments


def _card(asked: Asked, kind: str, words: _Words, note: str | None, command: str) -> str:
    if asked.run is not None:
        return card.of_run(asked.run, kind.removeprefix("reward_"), note)
    sources: Sequence[Part] = asked.parts
    origin = note or ", ".join(str(part.folder) for part in sources) or str(asked.model)
    return card.of_parts(
        title=Path(origin).name if len(sources) == 1 and not note else "combination",
        kind=kind,
        base=str(asked.base),
        base_hash=hf_import.content_hash(asked.base),
        origin=origin,
        template=words.made.name if words.made else "none",
        command=command,
        license=card.license_of(asked.base),
        date=datetime.date.today(),
        versions=provenance.packages(),
    )
