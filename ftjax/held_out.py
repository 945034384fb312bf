"""Rows that are never trained on, and what a model does on them: loss, perplexities, right answers."""

from collections.abc import Callable, Mapping, Sequence
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from ftjax import lookup
from ftjax.data import batch as arrays
from ftjax.data import encode, loader, records, tokenizer, versions
from ftjax.errors import UserError
from ftjax.evals import by_row, perplexity, tasks
from ftjax.inference import Model

Sums = Callable[[Any], tuple[Any, Any, dict[str, Any]]]  # batch -> loss sum, weight sum, metric sums


class HeldOut(NamedTuple):
    """A held-out set, ready to be measured."""

    rows: int
    told: list[by_row.Told]  # what each row is known by
    batches: list[Any]
    places: by_row.Places
    units: perplexity.Units
    items: list[tasks.Item]  # the questions: all where a check marks the answers, else those that are only shown
    check: tasks.Check | None
    max_new_tokens: int
    generate_batch: int

    def loss(self, sums: Sums) -> dict[str, float]:
        """Returns loss and perplexities."""
        return perplexity.evaluate(sums, self.batches, self.units)

    def during(self, sums: Sums, model: Callable[[], Model]) -> dict[str, float]:
        """Returns what is measured while training."""
        del model
        return self.loss(sums)

    def answers(self, model: Model, items: Sequence[tasks.Item]) -> list[tasks.Answer]:
        """Returns greedy answers to some of the items, with their scores (NaN where there is no check)."""
        return ask(self, model, items)

    def measure(self, evaluate: by_row.Evaluate, model: Model, reference: Any = None) -> by_row.Measured:
        """Returns all numbers (the mean score of the answers is `eval_score`), the answers, and all of it by row."""
        del reference  # of algorithms that are held against one
        numbers, found = by_row.evaluate(evaluate, self.batches, self.units, self.places)
        given, rows = self.answers(model, self.items), by_row.of_tokens(found)
        by_row.add_answers(rows, given, range(len(given)), counter(model))
        return by_row.Measured(
            numbers | {"eval_score": tasks.mean_score(given)} if self.check else numbers, given, rows
        )

    def remark(self, before: Mapping[str, float], now: Mapping[str, float]) -> str:
        """Returns what a user should be told of an evaluation: nothing."""
        del before, now
        return ""


def ask(held: Any, model: Model, items: Sequence[tasks.Item]) -> list[tasks.Answer]:
    """Returns greedy answers to some of a held-out set's questions, with their scores (NaN where it has no check)."""
    if not items:
        return []
    complete = functools.partial(
        model.complete, max_new_tokens=held.max_new_tokens, temperature=0.0, top_k=0, top_p=1.0, seed=0
    )
    return tasks.answer(complete, items, held.check or tasks.unmarked, batch_size=held.generate_batch)


def counter(model: Model) -> Callable[[str], int]:
    """Returns the function that counts the tokens of a text."""
    return lambda text: len(model.tokenizer.encode(text).ids)


def known_by(row: Mapping[str, Any], prompt: str, reference: str | None) -> by_row.Told:
    """Returns what a row is known by, which is the same wherever it stands; `row` is as its file has it."""
    task = row.get("task")
    return by_row.Told(versions.row_hash(dict(row))[:16], prompt, reference, None if task is None else str(task))


def units(examples: Sequence[encode.Example], tok: tokenizer.Tokenizer) -> perplexity.Units:
    """Returns how many words and bytes the counted tokens of examples stand for."""
    return perplexity.units(tok.decode(one.ids[one.mask > 0].tolist(), skip_special=True) for one in examples)


def split(rows: int, *, most: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which of a file's rows are held out, in random order, and which are left, in the file's order.

    A share of the rows, at least one and at most `most`; a function of the seed and the number of rows alone. Rows that
    are left may be equal to held-out ones: who trains on them leaves those out (`training_data.read`).
    """
    order = np.random.default_rng(np.random.SeedSequence((seed, 1))).permutation(rows)
    count = min(most, max(1, round(share * rows)))
    return order[:count], np.sort(order[count:])


def build(
    examples: Sequence[encode.Example],
    source: Mapping[str, dict[str, Any]],
    tok: tokenizer.Tokenizer,
    section: Mapping[str, Any],
    *,
    length: int,
) -> HeldOut:
    """Returns the set of these examples; `source` holds the rows that they were made of by their places.

    `section` is the config's `eval`.
    """
    check = lookup.lookup("ftjax.evals", section["check"]) if section["check"] else None
    form = {"layout": "packed", "batch_size": section["batch_size"], "length": length}
    batches = loader.eval_batches(
        examples,
        collator=arrays.EXAMPLES,
        buckets=(),
        shard=loader.Shard(jax.process_index(), jax.process_count()),
        **form,
    )
    sizes = [len(one.ids) for one in examples]
    items = [item(one, records.from_row(source[one.where], one.where), tok) for one in examples]
    try_check(check, section["check"], items, [one.where for one in examples])
    return HeldOut(
        rows=len(examples),
        told=[
            known_by(source[one.where], item.prompt, item.reference) for one, item in zip(examples, items, strict=True)
        ],
        batches=batches,
        places=by_row.Places(loader.eval_places(sizes, **form), np.array(sizes)),
        units=units(examples, tok),
        items=items if check else items[: section["samples"]],
        check=check,
        max_new_tokens=section["max_new_tokens"],
        generate_batch=section["generate_batch"],
    )


def shown(given: Sequence[tasks.Answer]) -> list[dict[str, Any]]:
    """Returns answers as rows of a table; the score only where a check gave one."""
    return [
        {"prompt": a.item.prompt, "reference": a.item.reference, "answer": a.prediction}
        | ({} if math.isnan(a.score) else {"score": a.score})
        for a in given
    ]


def try_check(check: tasks.Check | None, name: str, items: Sequence[tasks.Item], places: Sequence[str]) -> None:
    """Raises where a check cannot score one of the rows of a file: now, not after the training."""
    if check is None:
        return
    for one, where in zip(items, places, strict=True):
        try:
            tasks.marked(check, one.row, one.reference)
        except Exception as error:
            raise UserError(
                f"{where}: config.eval.check {name!r} cannot score this row ({type(error).__name__}: {error}); set it "
                "to tasks.exact_match, or to nothing where answers need no score"
            ) from error


def item(example: encode.Example, record: records.Record, tok: tokenizer.Tokenizer) -> tasks.Item:
    """Returns the question that an example's last answer replies to."""
    trained = np.flatnonzero(example.mask)
    first = last = int(trained[-1])
    while first > 0 and example.mask[first - 1]:
        first -= 1
    decode = lambda ids: tok.decode(ids.tolist(), skip_special=True).strip()
    reference = decode(example.ids[first : last + 1])
    if isinstance(record, records.Conversation):
        answered = [n for n, turn in enumerate(record.messages) if turn.role == "assistant" and turn.weight]
        turns = record.messages[: answered[-1] + 1] if answered else record.messages  # not what somebody says after it
        messages = [{"role": m.role, "content": m.content} for m in turns]
        prompt = next((m.content for m in reversed(turns) if m.role == "user"), "")
    else:
        prompt = decode(example.ids[:first])
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reference}]
    return tasks.Item(example.ids[:first].tolist(), {**record.extra, "messages": messages}, prompt, reference)
