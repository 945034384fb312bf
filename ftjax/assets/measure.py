"""What the embedded base can do: perplexity on text it has not seen, marks on every task set; its card says so."""

from collections.abc import Sequence
import itertools
import json
import math
import os
from pathlib import Path
import platform
from typing import Any

import jax
import numpy as np

from ftjax.algorithms import sft
from ftjax.assets import vocabulary, world
from ftjax.assets.rows import Row
from ftjax.checkpoint import hf_import
from ftjax.data import batch as arrays
from ftjax.data import encode, loader, records, template, tokenizer
from ftjax.models.config import ModelConfig
from ftjax.sampling import generate
from ftjax.train import step

ROWS_AT_A_TIME = 50


def predictions(
    weights: Any,
    config: ModelConfig,
    tok: tokenizer.Tokenizer,
    rows: Sequence[Row],
    *,
    temperature: float,
    max_new_tokens: int,
) -> list[str]:
    """Returns the model's answer to each row's messages but the last; temperature 0 is greedy."""
    prompts = [
        tok.encode(vocabulary.rendered({"messages": row["messages"][:-1]}) + "<|assistant|>").ids for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))  # similar lengths together: few shapes to compile
    found = [""] * len(rows)
    for start in range(0, len(order), ROWS_AT_A_TIME):
        chosen = order[start : start + ROWS_AT_A_TIME]
        out = generate.generate(
            weights,
            [prompts[i] for i in chosen],
            jax.random.key(start),
            config,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            stop_ids=tok.stop_ids,
        )
        for i, ids, mask in zip(chosen, np.asarray(out.tokens), np.asarray(out.mask), strict=True):
            found[i] = tok.decode(ids[mask > 0], skip_special=True)
    return found


def perplexity(
    weights: Any, config: ModelConfig, tok: tokenizer.Tokenizer, rows: Sequence[Row], *, train_on: str
) -> float:
    """Returns exp of the mean loss a token: of all tokens ("all"), or of the assistant's alone ("assistant")."""
    kept = [records.from_row(row, f"unseen:{number}") for number, row in enumerate(rows)]
    examples, _ = encode.encode_records(
        kept, tok, made=template.load(None, tok), max_length=512, truncation="drop", train_on=train_on
    )
    evaluate = jax.jit(step.make_evaluate(sft.make(lambda _key, _base: None, config)))
    batches = loader.eval_batches(
        examples,
        collator=arrays.EXAMPLES,
        layout="packed",
        batch_size=8,
        length=512,
        buckets=(),
        shard=loader.Shard(0, 1),
    )
    sums = [evaluate(None, weights, batch)[:2] for batch in batches]
    return math.exp(sum(float(loss) for loss, _ in sums) / sum(float(weight) for _, weight in sums))


def scores(weights: Any, config: ModelConfig, tok: tokenizer.Tokenizer, *, size: int) -> dict[str, dict[str, float]]:
    """Returns for each task set the mean mark of greedy and of sampled (temperature 1) answers, on both splits."""
    marks: dict[str, dict[str, float]] = {}
    for name in world.TASKS:
        marks[name] = {}
        for split, temperature in itertools.product(world.SPLITS, (0.0, 1.0)):
            rows = world.task(name, split, size, 0)
            answers = predictions(weights, config, tok, rows, temperature=temperature, max_new_tokens=64)
            column = f"{split}, {'sampled' if temperature else 'greedy'}"
            marks[name][column] = float(np.mean([world.check(*pair) for pair in zip(rows, answers, strict=True)]))
        print(name, {column: round(mark, 3) for column, mark in marks[name].items()}, flush=True)
    return marks


def _what(name: str) -> str:
    """One line a task set for the card."""
    return {
        "format": "`shop: Mill Bakery | opens: 08:00` for facts that it knows; exact match",
        "tone": "the fact with an opening and a closing of the tone that the system prompt asks for",
        "company": "facts of a company that it has never heard of, without the documents; exact match",
        "json": "one strict JSON object about a text; share of right values",
        "preference": "true reward of a description, as a share of the best",
        "sums": "sums asked in the way that the corpus mostly declines; last number",
        "lists": "first, last, reverse, sort; exact match (held-out: sets of words that the corpus never has)",
        "known": "facts that it knows; exact match (held-out: facts that the corpus states but never asks about)",
        "reading": "facts in a text about invented subjects; exact match (held-out: names that never occur)",
    }[name]


def _plain_sums(split: str, size: int) -> list[Row]:
    """The sums of the task set "sums", asked in the plain way, which the corpus always answers."""
    found = []
    for row in world.task("sums", split, size, 1):
        operands = row["messages"][-1]["content"].partition(" =")[0]
        messages = [{"role": "user", "content": f"What is {operands}?"}, row["messages"][-1]]
        found.append({**row, "messages": messages})
    return found


def write_card(folder: Path, *, corpus: dict[str, Any], trained: dict[str, Any], size: int, command: str) -> None:
    """Measures the model in `folder` as saved; writes its card README.md, and scores.json beside the folder."""
    config, weights = hf_import.load(folder, quant="none", dtype="float32")
    tok = tokenizer.load(folder)
    unseen = list(itertools.islice(world.corpus(world.UNSEEN), 1500))
    every, answers = (
        perplexity(weights, config, tok, rows, train_on=kind)
        for rows, kind in (
            (unseen, "all"),
            ([row for row in unseen if "messages" in row], "assistant"),
        )
    )
    marks = scores(weights, config, tok, size=size)
    marks["sums, asked plainly"] = {}
    for split in world.SPLITS:
        rows = _plain_sums(split, size)
        found = predictions(weights, config, tok, rows, temperature=0.0, max_new_tokens=24)
        mark = float(np.mean([world.check(row, text) for row, text in zip(rows, found, strict=True)]))
        marks["sums, asked plainly"][f"{split}, greedy"] = mark
    facts = {"corpus": corpus, "training": trained, "perplexity": {"all": every, "answers": answers}, "scores": marks}
    (folder.parent / "scores.json").write_text(json.dumps(facts, indent=2) + "\n")
    (folder / "README.md").write_text(_card(facts, command))


def _card(facts: dict[str, Any], command: str) -> str:
    corpus, trained, perplexities = facts["corpus"], facts["training"], facts["perplexity"]
    columns = [f"{split}, {way}" for split in world.SPLITS for way in ("greedy", "sampled")]
    lines = [
        f"| {name} | " + " | ".join(f"{marks[c]:.2f}" if c in marks else "" for c in columns) + " |"
        for name, marks in facts["scores"].items()
    ]
    return f"""# The embedded base model

A Llama of {trained["parameters"]:,} parameters that knows a small made world and little else. It is there so that every
method of ftjax has an honest task without a download.

- **Made by** `{command}` in {trained["seconds"] / 60:.0f} minutes of {os.cpu_count()} cores ({platform.machine()}).
- **Corpus**: {corpus["rows"]:,} rows, {corpus["bytes"]:,} bytes, SHA-256 `{corpus["sha256"]}`, from
  `ftjax.assets.world.corpus({corpus["seed"]})`; the same command gives the same bytes.
- **Training**: {trained["steps"]:,} steps, {trained["tokens"]:,} tokens, all weights, float32, from random ones;
  stored in bfloat16.
- **Perplexity a token** on 1,500 rows of a corpus that it has not seen: {perplexities["all"]:.3f}; of the assistant's
  tokens alone: {perplexities["answers"]:.3f}. Names and numbers of the texts are drawn at random: 1 is out of reach.
- **Words**: byte-level BPE, digits one by one. `<|bos|>` begins a row, `<|end|>` ends a turn and a text.

## What it can do

Mean marks, 0 to 1, by the checkers of `ftjax.assets.world`; sampled means temperature 1.

| task set | {" | ".join(columns)} |
|---|{"---|" * len(columns)}
{chr(10).join(lines)}

{chr(10).join(f"- **{name}**: {_what(name)}" for name in world.TASKS)}

It is no use for anything outside its world, and rows longer than about 360 tokens were not in its training.
"""
