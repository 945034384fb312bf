"""The sections data and eval of a config -> rows to train on, rows held out, and how batches are made of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax import config as configs
from ftjax import held_out, held_out_preferences, held_out_prompts
from ftjax.data import batch as arrays
from ftjax.data import (
    candidates,
    completions,
    encode,
    loader,
    preference_batch,
    preferences,
    prompts,
    records,
    template,
    tokenizer,
    used,
    versions,
)
from ftjax.data import rows as rows_of
from ftjax.errors import UserError
from ftjax.evals import by_row
from ftjax.models.config import ModelConfig
from ftjax.objective import Objective

ROUND = 64  # a packed row of preferences is made that much longer at a time
TWIN = "equal to a held-out row"  # what becomes of such a row: it is not trained on


class Data(NamedTuple):
    """Everything that a run reads, as tokens."""

    train: list[list[Any]]  # one list a path
    chosen: list[Any]  # held out
    source: dict[str, dict[str, Any]]  # the rows that these come from, by their places
    report: Any  # of the first path
    collator: arrays.Collator
    length: int  # of a packed row
    stream: Callable[[Sequence[Sequence[Any]]], loader.Loader]  # training sets -> their batches
    normalise: list[Any]  # preferences of one completion each, on which a reward model is normalised; may be none
    hash: str  # of the tokens of all rows, trained on or held out: a resumed run must find the same
    sources: list[used.Source]  # every file that is read, and what became of its rows


def _hash(rows: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for part in _pieces(rows):
        total.update(part.tobytes())
    return total.hexdigest()


def _pieces(rows: Iterable[Any]) -> Iterable[np.ndarray]:
    """Yields the arrays that rows consist of."""
    for row in rows:
        if isinstance(row, encode.Example):
            yield from (row.ids, row.mask)
        elif isinstance(row, prompts.Prompt):
            yield row.ids
            yield np.frombuffer(json.dumps(row.row, sort_keys=True, default=str).encode(), np.uint8)
        else:
            yield row.prompt
            yield from itertools.chain(*row.branches())
            yield np.array([*itertools.chain(*row.pairs), *row.margins, *row.labels], np.float64)


def read(
    c: Mapping[str, Any], objective: Objective, tok: tokenizer.Tokenizer, name: str | None, shard: loader.Shard
) -> Data:
    """Returns the data of a config for an objective; `name` is that of the chat template."""
    d, e = c["data"], c["eval"]
    if objective.data == "prompts":
        return _prompts(c, tok, name, shard)
    if objective.data == "rows":
        encoded: Any = functools.partial(
            encode.encode_file, tok=tok, template_name=name, max_length=d["max_length"], truncation=d["truncation"],
            train_on=d["train_on"],
        )  # fmt: skip
        rows_at: Any = records.rows_at
    else:
        encoded = functools.partial(
            candidates.encode_preferences_file, tok=tok, template_name=name, max_length=d["max_length"],
            truncation=d["truncation"], equal=d["equal"], mismatched=objective.mismatched,
        )  # fmt: skip
        rows_at = preferences.rows_at
    train, chosen, told, sources = _apart(c, encoded)
    source = rows_at(str(e["path"] or d["paths"][0]), [row.where for row in chosen])
    collator, length, whole = arrays.EXAMPLES, d["max_length"], (*itertools.chain(*train), *chosen)
    if objective.data != "rows":
        for row in whole:
            _check(row, objective)
        _check_loss(c, whole)
        length = _row_length(d, whole)
        collator = preference_batch.collator(
            [*train, chosen], layout=d["layout"], length=length, prefix=d["prefix"]
        )  # fmt: skip
    stream = functools.partial(_stream, c, collator=collator, layout=d["layout"], length=length, shard=shard)
    others = []
    if objective.reward and c["normalise"]["path"]:
        read_ = completions.read(c["normalise"]["path"])
        others = [one for row in read_ for one in row.completions][: c["normalise"]["rows"]]
        sources.append(used.Source(c["normalise"]["path"], _named(others, used.MEASURED), used.NOT_READ))
    return Data(train, chosen, source, told, collator, length, stream, others, _hash(whole), sources)


def _named(found: Iterable[Any], use: str) -> dict[str, str]:
    """Returns one use for rows by their places."""
    return dict.fromkeys((one.where for one in found), use)


def _apart(
    c: Mapping[str, Any], encoded: Callable[[Any], tuple[list[Any], Any]]
) -> tuple[list[Any], list[Any], Any, list[used.Source]]:
    """Returns the rows of each path to train on, those held out, the report on the first path, and what was read."""
    d, e = c["data"], c["eval"]
    if not d["paths"]:
        raise UserError("config.data.paths is empty; name a file: --config.data.paths=train.jsonl")
    found = [encoded(path) for path in d["paths"]]
    train, told = [rows for rows, _ in found], found[0][1]
    sources = [
        used.Source(path, {**report.left_out, **_named(rows, used.TRAINED)}, used.NOT_READ)
        for path, (rows, report) in zip(d["paths"], found, strict=True)
    ]
    if e["path"]:
        rows, report = encoded(e["path"])
        chosen = rows[: e["rows"]]
        sources.append(used.Source(e["path"], {**report.left_out, **_named(chosen, used.HELD_OUT)}, used.NOT_READ))
        return train, chosen, told, sources
    held, kept = held_out.split(len(train[0]), most=e["rows"], share=e["holdout"], seed=c["seed"])
    if not len(kept):
        raise UserError(f"{d['paths'][0]} has {len(held)} rows, too few to hold some out; give config.eval.path")
    chosen, train[0] = [train[0][i] for i in held], [train[0][i] for i in kept]
    known = {_read_as(one) for one in chosen}
    for number, (path, rows) in enumerate(zip(d["paths"], train, strict=True)):
        twins = [one for one in rows if _read_as(one) in known]
        if rows and len(twins) == len(rows):
            raise UserError(
                f"{path}: each of the {len(rows)} rows to train on is equal to one that is held out, so none is left; "
                "remove copies (data.py check --fix), or give config.eval.path"
            )
        train[number] = [one for one in rows if _read_as(one) not in known]
        sources[number] = sources[number]._replace(uses={**sources[number].uses, **_named(twins, TWIN)})
    sources[0] = sources[0]._replace(uses={**sources[0].uses, **_named(chosen, used.HELD_OUT)})
    return train, chosen, told, sources


def _read_as(row: Any) -> bytes:
    """Returns what is equal for rows that a model reads as the same text, however often and in what order it comes."""
    if isinstance(row, encode.Example | prompts.Prompt):
        return row.ids.tobytes()
    parts = (row.prompt, *sorted(row.completions, key=lambda ids: ids.tobytes()))
    return b"".join(len(ids).to_bytes(4, "little") + ids.tobytes() for ids in parts)


def twins(data: Data) -> int:
    """Returns how many rows are not trained on because they are equal to a held-out one."""
    return sum(use == TWIN for source in data.sources for use in source.uses.values())


def _stream(
    c: Mapping[str, Any],
    datasets: Sequence[Sequence[Any]],
    *,
    collator: arrays.Collator,
    layout: str,
    length: int,
    shard: loader.Shard,
) -> loader.Loader:
    """Returns the batches of training sets, mixed as the config says."""
    d = c["data"]
    return loader.Loader(
        datasets,
        collator=collator,
        weights=d["weights"] or None,
        layout=layout,
        batch_size=d["batch_size"],
        length=length,
        buckets=buckets(d, length),
        seed=c["seed"],
        shard=shard,
    )


def _prompts(c: Mapping[str, Any], tok: tokenizer.Tokenizer, name: str | None, shard: loader.Shard) -> Data:
    """Returns the prompts of a config, those held out, and the batches, with ordinary text beside them if asked for."""
    d, e, length = c["data"], c["eval"], c["data"]["max_length"]
    encoded = functools.partial(
        prompts.read, tok=tok, made=template.load(name, tok) if name or tok.chat_template else None, max_length=length,
        truncation=d["truncation"], numbers=itertools.count(),
    )  # fmt: skip
    train, chosen, told, sources = _apart(c, encoded)
    source = records.rows_at(str(e["path"] or d["paths"][0]), [one.where for one in chosen])
    plain = functools.partial(_stream, c, collator=prompts.PROMPTS, layout="padded", length=length, shard=shard)
    stream: Callable[..., Any] = plain
    text: list[encode.Example] = []
    if d.get("text"):
        text, beside_told = encode.encode_file(
            d["text"], tok, template_name=name, max_length=length, truncation="drop", train_on="all"
        )
        learned = {**beside_told.left_out, **_named(text, used.BESIDE)}
        sources.append(used.Source(d["text"], learned, used.NOT_READ))
        beside = loader.Loader(
            [text], collator=arrays.EXAMPLES, weights=None, layout="packed", batch_size=d["batch_size"],
            length=length, buckets=(), seed=c["seed"], shard=shard,
        )  # fmt: skip
        stream = lambda datasets: loader.Beside(plain(datasets), beside, "text")
    whole = _hash((*itertools.chain(*train), *chosen, *text))
    return Data(train, chosen, source, told, prompts.PROMPTS, length, stream, [], whole, sources)


def hold_out(
    data: Data, objective: Objective, tok: tokenizer.Tokenizer, c: Mapping[str, Any], config: ModelConfig
) -> Any:  # fmt: skip
    """Returns the held-out rows, ready to be measured."""
    if objective.data == "prompts":
        return held_out_prompts.build(data.chosen, data.source, c["eval"], config=config, seed=c["seed"])
    if objective.data == "rows":
        return held_out.build(data.chosen, data.source, tok, c["eval"], length=c["data"]["max_length"])
    labels = objective.data == "labels"
    counts = [len(row.completions) + len(row.mismatched) if labels else len(row.pairs) for row in data.chosen]
    sizes = [data.collator.size(row) for row in data.chosen]
    places = loader.eval_places(
        sizes, layout=c["data"]["layout"], batch_size=c["eval"]["batch_size"], length=data.length
    )
    return held_out_preferences.build(
        data.chosen,
        data.source,
        tok,
        c["eval"],
        batches=held_batches(data, c),
        places=by_row.Places(places, np.array(counts)),
        labels=labels,
        config=config,
        generates=not objective.reward,
        seed=c["seed"],
    )


def held_batches(data: Data, c: Mapping[str, Any]) -> list[Any]:
    """Returns the batches of the rows held out, arranged as those that are trained on."""
    return loader.eval_batches(
        data.chosen,
        collator=data.collator,
        layout=c["data"]["layout"],
        batch_size=c["eval"]["batch_size"],
        length=data.length,
        buckets=buckets(c["data"], data.length),
        shard=loader.Shard(jax.process_index(), jax.process_count()),
    )


def check_context(config: ModelConfig, rows: Iterable[Any], asked: Any) -> None:
    """Raises where a row, or a question with the answer that it may get, is longer than the model's context."""
    longest = max(rows, key=_longest)
    if _longest(longest) > config.context:
        raise UserError(
            f"{longest.where}: a row of {_longest(longest)} tokens, but the context of the model is "
            f"{config.context}; set config.data.max_length to that at most"
        )
    prompt = max((len(item.prompt_ids) for item in asked.items), default=0)
    if asked.items and prompt + asked.max_new_tokens > config.context:
        raise UserError(
            f"a held-out prompt of {prompt} tokens and config.eval.max_new_tokens {asked.max_new_tokens} exceed the "
            f"context of the model, {config.context}; lower config.eval.max_new_tokens or config.data.max_length"
        )


def check_length(config: ModelConfig, c: Mapping[str, Any], objective: Objective, data: Data) -> None:
    """Raises where chats or texts are packed to more than the model's context.

    Preferences may be: a packed row of them holds a prompt with all its completions, and as many rows as are asked for.
    """
    packed = objective.data == "rows" or (objective.data == "prompts" and bool(c["data"].get("text")))
    if packed and data.length > config.context:
        raise UserError(
            f"config.data.max_length is {data.length}, to which rows are packed, but the context of the model is "
            f"{config.context}; set that at most"
        )


def of_one_epoch(c: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Returns a config with steps 0 as it is run where an epoch has so many: a tenth of them at most warms up."""
    warmup = min(c["optimizer"]["warmup_steps"], steps // 10)
    return {**c, "steps": steps, "optimizer": {**c["optimizer"], "warmup_steps": warmup}}


def check_unchanged(runs: Iterable[Path], way_out: Callable[[Path], str]) -> None:
    """Raises where a file holds something else than when one of the runs read it; one that is gone says nothing."""
    now = functools.cache(lambda path: versions.content(value for _, value in rows_of.attempts(path)).hash)
    for run in runs:
        facts = run / used.FACTS
        for file in json.loads(facts.read_text(encoding="utf-8")).get("files", ()) if facts.exists() else ():
            path, then = file["path"], file["hash"]
            if Path(path).exists() and now(path) != then:
                raise UserError(
                    f"{path} has changed since {run} read it (version {then[: versions.SHORT]}, now "
                    f"{now(path)[: versions.SHORT]}); put back what it was, {way_out(run)}"
                )


def _longest(row: Any) -> int:
    """Returns the tokens of a row, or of a prompt with the longest of its completions."""
    if isinstance(row, encode.Example | prompts.Prompt):
        return len(row.ids)
    return len(row.prompt) + max(len(ids) for ids, _ in row.branches())


def _check(row: candidates.Candidates, objective: Objective) -> None:
    if objective.data == "pairs" and not row.pairs:
        instead = (
            "take config.loss.name=pointwise, which learns from labels"
            if objective.reward
            else "train with KTO, which learns from labels (configs/smoke/kto.py)"
        )
        raise UserError(
            f"{row.where}: one completion with a label, but this objective learns from pairs; give chosen and "
            f"rejected, or {instead}"
        )
    if objective.data == "labels":
        instead = (
            "take config.loss.name=bradley_terry, which learns from pairs"
            if objective.reward
            else "train with DPO, which learns from pairs (configs/smoke/dpo.py)"
        )
        if not np.isfinite(row.labels).all():
            raise UserError(
                f"{row.where}: a completion without a label, which is what this objective learns from; give one, or "
                f"{instead}"
            )
        outside = [label for label in row.labels if not 0 <= label <= 1]
        if outside:
            raise UserError(f"{row.where}: score {outside[0]} is no label; give labels, or scores between 0 and 1")


def _check_loss(c: Mapping[str, Any], rows: Sequence[candidates.Candidates]) -> None:
    """Raises where a setting of the loss has nothing to work on in these rows."""
    values = configs.flatten(c)
    if "loss.ld_alpha" in values and values["loss.ld_alpha"] != 1:
        many = next((row for row in rows if len(row.completions) != 2), None)
        if many is not None:
            raise UserError(
                f"{many.where}: {len(many.completions)} completions, but config.loss.ld_alpha compares the lengths of "
                "two; set 1"
            )
    if "loss.margin_scale" in values and values["loss.margin_scale"] and not any(any(row.margins) for row in rows):
        raise UserError(
            f"config.loss.margin_scale is {values['loss.margin_scale']}, but no row has a margin; set 0, or give "
            "margins"
        )


def _row_length(d: Mapping[str, Any], rows: Iterable[candidates.Candidates]) -> int:
    """Returns config.data.row_length, or for 0 a length that holds the largest row with all its completions."""
    if d["row_length"]:
        return int(d["row_length"])
    largest = max(row.size(d["prefix"]) for row in rows)
    return max(-(-largest // ROUND) * ROUND, d["max_length"] if d["layout"] == "packed" else 0)


def buckets(section: Mapping[str, Any], length: int) -> tuple[int, ...]:
    """Returns the buckets up to the longest row that truncation lets through."""
    return (*(size for size in section["buckets"] if size < length), length)
