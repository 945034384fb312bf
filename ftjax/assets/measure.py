"""What the embedded base can do: perplexity on text it has not seen, marks on every task set; its card says so."""

from collections.abc import Sequence
import itertools
import math
from pathlib import Path
import textwrap
from typing import Any

import jax
import numpy as np

from ftjax.algorithms import sft
from ftjax.assets import vocabulary, world
from ftjax.assets.rows import Row
from ftjax.checkpoint import hf_import
from ftjax.data import encode, loader, records, template, tokenizer
from ftjax.models.config import ModelConfig
from ftjax.sampling import generate
from ftjax.train import step

UNSEEN = 1_000_003  # seed of the corpus that perplexity is measured on
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
    kept = [record for i, row in enumerate(rows) for record in [records.from_row(row, f"unseen:{i}")]]
    examples, _ = encode.encode_records(
        kept, tok, made=template.load(None, tok), max_length=512, truncation="drop", train_on=train_on
    )
    evaluate = jax.jit(step.make_evaluate(sft.make(lambda key, base: None, config)))
    batches = loader.eval_batches(
        examples, layout="packed", batch_size=8, length=512, buckets=(), shard=loader.Shard(0, 1)
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
