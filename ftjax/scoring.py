"""One or several reward models on one base -> scores of completions. A composition root beside `inference`.

A score is what the head of a reward model says at the last token of a completion, which is its stop token; normalised
by the `score.json` beside the adapter, where there is one, to mean 0 and variance 1 on the completions that it names.
The base is in memory once: each reward model is an adapter with a head, attached when its turn comes.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import hosts, inference
from ftjax.adapters import attach
from ftjax.checkpoint import hf_import, peft, shards
from ftjax.data import batch, candidates, completions, files, template, tokenizer
from ftjax.data.preferences import Preference
from ftjax.errors import UserError
from ftjax.models import decoder, heads
from ftjax.models.config import ModelConfig

BATCH = 16  # rows at a time
Say = Callable[[str], None]


class RewardModel(NamedTuple):
    """One reward model: adapters with a head, and what its scores are on the completions it was normalised on."""

    name: str
    adapters: Any
    mean: float
    std: float
    weight: float


class Scored(NamedTuple):
    """Scores of completions: of each model, as it is or normalised, and their sum by weight; float32."""

    each: np.ndarray  # [models, n]
    total: np.ndarray  # [n]


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Reward models on one base, and all that it takes to read text with them."""

    folder: Path
    config: ModelConfig
    base: Any
    models: tuple[RewardModel, ...]
    tokenizer: tokenizer.Tokenizer
    template: template.Template | None

    def score(self, prompts: Sequence[Any], given: Sequence[Any]) -> np.ndarray:
        """Returns a score [n] for each completion of the prompt at its place, normalised and summed by weight, float32.

        Both are text, or messages as dicts with role and content. Texts are taken as they are, without chat template.
        """
        if len(prompts) != len(given):
            raise ValueError(f"score: {len(prompts)} prompts and {len(given)} completions; give one for each")
        pairs = zip(prompts, given, strict=True)
        rows = [
            completions.from_row({"prompt": prompt, "completion": one}, f"row {number}")
            for number, (prompt, one) in enumerate(pairs, start=1)
        ]
        return self.score_rows([row.completions[0] for row in rows], raw=False, truncate=False).total

    def score_rows(self, rows: Sequence[Preference], *, raw: bool, truncate: bool, say: Say = lambda _: None) -> Scored:
        """Returns the scores of preferences of one completion each, in order.

        `raw` leaves them as the heads give them. What is longer than the context is a UserError, or with `truncate`
        has its prompt cut from the left, which is said.
        """
        if not rows:
            return Scored(np.zeros((len(self.models), 0), np.float32), np.zeros(0, np.float32))
        texts = self._tokens(rows, truncate=truncate, say=say)
        each = np.stack([self.of(model, texts) for model in self.models])
        if not raw:
            each = (each - np.array([[m.mean] for m in self.models])) / np.array([[m.std] for m in self.models])
        total = np.array([model.weight for model in self.models]) @ each
        return Scored(each.astype(np.float32), total.astype(np.float32))

    def _tokens(self, rows: Sequence[Preference], *, truncate: bool, say: Say) -> list[np.ndarray]:
        """Returns prompt and completion of each row, as training has them, within the context."""
        found, _ = candidates.encode_preferences(
            rows, self.tokenizer, made=self.template, max_length=None, truncation="error", equal="drop",
            mismatched=False,
        )  # fmt: skip
        limit, cut, texts = self.config.context, 0, []
        for one in found:
            answer = one.completions[0]
            size, least = len(one.prompt) + len(answer), candidates.least(one, self.tokenizer) + len(answer)
            if least > limit:
                raise UserError(
                    f"{one.where}: the completion has {len(answer)} tokens, with which no prompt fits into the context "
                    f"of {limit} tokens of {self.folder}; shorten it or remove the row"
                )
            if size > limit and not truncate:
                raise UserError(
                    f"{one.where}: prompt and completion have {size} tokens, and the context of {self.folder} has "
                    f"{limit}; shorten the row, or cut such prompts from the left with --truncate (truncate=True)"
                )
            cut += size > limit
            short = candidates.cut(one, len(answer), limit, self.tokenizer)
            texts.append(np.concatenate([short.prompt, answer]))
        if cut:
            say(f"{cut:,} of {len(rows):,} prompts cut from the left to the context of {limit} tokens")
        return texts

    def of(self, model: RewardModel, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Returns what a head says at the end of each text, float64 [n]."""
        params = attach.attach(self.base, model.adapters)
        scores = np.zeros(len(texts))
        for places, width in batch.by_width([len(text) for text in texts], longest=self.config.context, rows=BATCH):
            tokens = np.zeros((batch.padded_rows(len(places)), width), np.int32)
            ends = np.zeros(len(tokens), np.int32)
            for row, place in enumerate(places):
                tokens[row, : len(texts[place])], ends[row] = texts[place], len(texts[place]) - 1
            scores[places] = hosts.on_host(_heads(params, tokens, ends, self.config))[: len(places)]
        broken = np.flatnonzero(~np.isfinite(scores))
        if len(broken):
            raise UserError(f"{model.name}: {len(broken)} of {len(texts)} scores are not finite; it has diverged")
        return scores


@functools.partial(jax.jit, static_argnames="config")
def _heads(params: Any, tokens_BT: jax.Array, ends_B: jax.Array, config: ModelConfig) -> jax.Array:
    segments_BT = (jnp.arange(tokens_BT.shape[1])[None] <= ends_B[:, None]).astype(jnp.int32)
    hidden_BTD = decoder.hidden(params, tokens_BT, config, None, segments_BT)
    return heads.score(params, hidden_BTD, ends_B[:, None])[:, 0]


def load(runs: Sequence[str | Path], *, weights: Sequence[float] | None = None, dtype: str = "float32") -> Scorer:
    """Returns the reward models of finished runs, summed by weight (None: 1 each), on the base that they share.

    Runs on different bases, on one base in different bits or under different chat templates are a UserError that names
    both; so is a run whose adapter has no head.
    """
    base, parts, given = of_runs(runs, weights)
    return _load(parts, model=base.model, template_name=base.template, quant=base.quant, weights=given, dtype=dtype)


def of_runs(
    runs: Sequence[str | Path], weights: Sequence[float] | None
) -> tuple[inference.Made, list[tuple[str, Path]], list[float]]:
    """Returns the base that reward models of finished runs share, name and folder of each adapter, and its weight.

    Raises UserError as `load` does.
    """
    if not runs:
        raise UserError("there is no reward model to score with; give the folder of a run")
    made = {str(run): inference.made_by(run) for run in runs}
    for name, one in made.items():
        if one.adapter is None:
            raise UserError(f"{name} trained all weights; it is no adapter on a base that others share")
    first, *others = made
    for name in others:
        check_same_base(first, made[first].model, name, made[name].model)
        for what in ("quant", "template"):
            ours, theirs = getattr(made[first], what), getattr(made[name], what)
            if ours != theirs:
                shown = [value.format if what == "quant" else value or "the base's own" for value in (ours, theirs)]
                raise UserError(
                    f"{first} was trained with {what} {shown[0]}, {name} with {shown[1]}; score with one at a time"
                )
    parts = [(name, Path(str(one.adapter))) for name, one in made.items()]
    return made[first], parts, _weights(weights, [str(run) for run in runs])


def load_adapters(
    model: str,
    adapters: Sequence[str | Path],
    *,
    template_name: str | None,
    quant: inference.Quant,
    weights: Sequence[float] | None,
    dtype: str,
) -> Scorer:
    """Returns PEFT adapters of task SEQ_CLS, whoever made them, on a base."""
    folders = [Path(folder).expanduser() for folder in adapters]
    return _load(
        [(str(folder), folder) for folder in folders],
        model=model,
        template_name=template_name,
        quant=quant,
        weights=_weights(weights, [str(folder) for folder in folders]),
        dtype=dtype,
    )


def _load(
    parts: Sequence[tuple[str, Path]],
    *,
    model: str,
    template_name: str | None,
    quant: inference.Quant,
    weights: Sequence[float],
    dtype: str,
) -> Scorer:
    folder = inference.folder_of(model)
    config, base = hf_import.load(folder, quant.format, dtype, leaves=quant.leaves, group=quant.group)
    tok = tokenizer.load(folder)
    tokenizer.check_vocabulary(tok, config.vocab_size)
    return Scorer(
        folder=folder,
        config=config,
        base=base,
        models=models_on(base, config, parts, weights),
        tokenizer=tok,
        template=template.load(template_name, tok) if template_name or tok.chat_template else None,
    )


def models_on(
    base: Any, config: ModelConfig, parts: Sequence[tuple[str, Path]], weights: Sequence[float]
) -> tuple[RewardModel, ...]:  # fmt: skip
    """Returns the reward models of these folders, by name, on a base that is in memory (or on its shapes)."""
    models = []
    for (name, at), weight in zip(parts, weights, strict=True):
        mean, std = normalisation(at)
        adapters = peft.load(at, base, config)
        if adapters.score is None:
            raise UserError(f"{name} is the adapter of a language model: it has no reward head (task_type SEQ_CLS)")
        models.append(RewardModel(name, adapters, mean, std, weight))
    return tuple(models)


def _weights(weights: Sequence[float] | None, names: Sequence[str]) -> list[float]:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{twice[0]} is given twice; give each reward model once, with its weight")
    if weights is None:
        return [1.0] * len(names)
    if len(weights) != len(names) or not all(map(math.isfinite, weights)):
        shown = " ".join(f"{weight:g}" for weight in weights)
        raise UserError(f"--weights {shown}: {len(names)} reward models need one finite number each")
    return [float(weight) for weight in weights]


def check_same_base(one: str, its: str, other: str, others: str) -> None:
    """Raises where two runs have bases of different content."""
    first, second = inference.folder_of(its), inference.folder_of(others)
    if first.resolve() == second.resolve() or hf_import.content_hash(first) == hf_import.content_hash(second):
        return
    raise UserError(
        f"{one} was trained on {first}, {other} on {second}; reward models of different bases cannot share one: score "
        "with one at a time"
    )


def normalisation(adapter_dir: Path) -> tuple[float, float]:
    """Returns mean and standard deviation of scores as `score.json` beside an adapter has them; without it (0, 1)."""
    file = adapter_dir / peft.SCORE
    if not file.is_file():
        return 0.0, 1.0
    facts = shards.read_json(file, what="the normalisation of a reward model")
    mean, std = (_finite(facts, key, file) for key in ("mean", "std"))
    if std <= 0:
        raise UserError(f"{file}: std {std:g} must be above 0; remove the file for raw scores")
    return mean, std


def _finite(facts: Mapping[str, Any], key: str, file: Path) -> float:
    value = facts.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{file}: {key} is {value!r}, which is no finite number; remove the file for raw scores")
    return float(value)


def score_file(
    scorer: Scorer, source: Path, out: Path, *, column: str, raw: bool, truncate: bool, say: Say
) -> tuple[int, np.ndarray]:
    """Returns how many rows of a file it wrote to `out`, each with its score, and all scores; whole or not at all.

    A row with one completion gets `column`, one of several completions a list of them in `column` + "s"; with several
    reward models, `column` + "_by_model" holds those of each by its name.
    """
    rows = completions.read(source)
    names = (column, f"{column}s", f"{column}_by_model")
    taken = [name for name in names if any(name in row.row for row in rows)]
    if taken:
        raise UserError(f"{source} has a column {taken[0]!r} already; name another one with --column")
    for model in scorer.models:
        if not raw and (model.mean, model.std) == (0.0, 1.0):
            say(f"{model.name} has no {peft.SCORE}, so its scores are as its head gives them")
    found = scorer.score_rows([one for row in rows for one in row.completions], raw=raw, truncate=truncate, say=say)
    beside = out.with_name(f".{out.name}.tmp")
    try:
        with beside.open("w", encoding="utf-8") as stream:
            at = 0
            for row in rows:
                own = slice(at, at + len(row.completions))
                at = own.stop
                several = {m.name: _told(each[own], row) for m, each in zip(scorer.models, found.each, strict=True)}
                made = {names[row.several]: _told(found.total[own], row)}
                made |= {names[2]: several} if len(scorer.models) > 1 else {}
                stream.write(files.line({**row.row, **made}, row.where) + "\n")
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return len(rows), found.total


def _told(scores: np.ndarray, row: completions.Answered) -> Any:
    values = [float(f"{score:.7g}") for score in scores]
    return values if row.several else values[0]
