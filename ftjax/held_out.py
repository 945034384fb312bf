"""Rows that are never trained on, and what a model does on them: loss, perplexities, right answers."""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax import lookup
from ftjax.data import encode, loader, records, tokenizer
from ftjax.evals import perplexity, tasks
from ftjax.inference import Model

Sums = Callable[[Any], tuple[Any, Any, dict[str, Any]]]  # batch -> loss sum, weight sum, metric sums


class HeldOut(NamedTuple):
    """A held-out set, ready to be measured."""

    batches: list[Any]
    units: perplexity.Units
    items: list[tasks.Item]  # the questions; empty where no answers are wanted
    check: tasks.Check | None
    max_new_tokens: int
    generate_batch: int

    def loss(self, sums: Sums) -> dict[str, float]:
        """Returns loss and perplexities."""
        return perplexity.evaluate(sums, self.batches, self.units)

    def answers(self, model: Model, items: Sequence[tasks.Item]) -> list[tasks.Answer]:
        """Returns greedy, scored answers to some of the items."""
        if self.check is None or not items:
            return []
        ask = functools.partial(
            model.complete, max_new_tokens=self.max_new_tokens, temperature=0.0, top_k=0, top_p=1.0, seed=0
        )
        return tasks.answer(ask, items, self.check, batch_size=self.generate_batch)

    def measure(self, sums: Sums, model: Model) -> tuple[dict[str, float], list[tasks.Answer]]:
        """Returns all numbers, with the mean score of the answers as `eval_score`, and the answers."""
        numbers, given = self.loss(sums), self.answers(model, self.items)
        return (numbers | {"eval_score": tasks.mean_score(given)} if given else numbers), given


def build(
    examples: Sequence[encode.Example],
    source: Sequence[records.Record],
    tok: tokenizer.Tokenizer,
    section: Mapping[str, Any],
    *,
    length: int,
) -> HeldOut:
    """Returns the set of these examples; `source` holds the records that they were made of, and maybe more.

    `section` is the config's `eval`.
    """
    check = lookup.lookup("ftjax.evals", section["check"]) if section["check"] else None
    by_place = {record.where: record for record in source}
    texts = [tok.decode(example.ids[example.mask > 0].tolist(), skip_special=True) for example in examples]
    batches = loader.eval_batches(
        examples,
        layout="packed",
        batch_size=section["batch_size"],
        length=length,
        buckets=(),
        shard=loader.Shard(jax.process_index(), jax.process_count()),
    )
    items = [_item(example, by_place[example.where], tok) for example in examples] if check else []
    return HeldOut(batches, perplexity.units(texts), items, check, section["max_new_tokens"], section["generate_batch"])


def shown(given: Sequence[tasks.Answer]) -> list[dict[str, Any]]:
    """Returns answers as rows of a table."""
    return [
        {"prompt": a.item.prompt, "reference": a.item.reference, "answer": a.prediction, "score": a.score}
        for a in given
    ]


def _item(example: encode.Example, record: records.Record, tok: tokenizer.Tokenizer) -> tasks.Item:
    """Returns the question that an example's last answer replies to."""
    trained = np.flatnonzero(example.mask)
    first = last = int(trained[-1])
    while first > 0 and example.mask[first - 1]:
        first -= 1
    decode = lambda ids: tok.decode(ids.tolist(), skip_special=True).strip()
    reference = decode(example.ids[first : last + 1])
    if isinstance(record, records.Conversation):
        messages = [{"role": m.role, "content": m.content} for m in record.messages]
        prompt = next((m.content for m in reversed(record.messages) if m.role == "user"), "")
    else:
        prompt = decode(example.ids[:first])
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reference}]
    return tasks.Item(example.ids[:first].tolist(), {**record.extra, "messages": messages}, prompt, reference)
