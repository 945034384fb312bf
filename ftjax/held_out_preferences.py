"""Held-out preferences, and what a policy or a reward model does on them.

A policy: loss, reward accuracy and margins, its own answers and their score, the KL to the reference on its samples. A
reward model: loss and accuracy; its report at the end of a run is `reward_report`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ftjax import held_out, lookup
from ftjax.data import candidates, preferences, tokenizer
from ftjax.evals import by_row, perplexity, policy_kl, tasks
from ftjax.inference import Model
from ftjax.models.config import ModelConfig

FALL = 1.0  # nats by which a log-probability must fall to be remarked on
NO_TEXT = perplexity.Units(words=0, bytes=0)


class HeldOutPreferences(NamedTuple):
    """A held-out set of preferences, ready to be measured."""

    rows: int
    told: list[by_row.Told]  # what each row is known by
    batches: list[Any]
    places: by_row.Places
    labels: bool  # the loss is of completions with labels, not of pairs
    items: list[tasks.Item]
    asked: list[int]  # rows that the items are of
    check: tasks.Check | None
    max_new_tokens: int
    generate_batch: int
    config: ModelConfig
    kl_prompts: list[list[int]]
    seed: int

    def loss(self, sums: held_out.Sums) -> dict[str, float]:
        """Returns the mean loss of a pair (or of a labelled completion), and the means of the loss's own metrics."""
        return _without_perplexity(perplexity.evaluate(sums, self.batches, NO_TEXT))

    def answers(self, model: Model, items: Sequence[tasks.Item]) -> list[tasks.Answer]:
        """Returns greedy answers to some of the prompts, with their scores (NaN where there is no check)."""
        return held_out.ask(self, model, items)

    def measure(self, evaluate: by_row.Evaluate, model: Model, reference: Any) -> by_row.Measured:
        """Returns all numbers, the answers, and all of it by row; a KL only where there are weights of a reference."""
        numbers, found = by_row.evaluate(evaluate, self.batches, NO_TEXT, self.places)
        numbers, given = _without_perplexity(numbers), self.answers(model, self.items)
        if self.check:
            numbers["eval_reward"] = tasks.mean_score(given)
        rows = by_row.of_elements(found, labels=self.labels)
        by_row.add_answers(rows, given, self.asked, held_out.counter(model))
        return by_row.Measured(numbers | of_policy(self, model, reference), given, rows)

    def during(self, sums: held_out.Sums, model: Callable[[], Model]) -> dict[str, float]:
        """Returns what is measured while training."""
        del model
        return self.loss(sums)

    def remark(self, before: Mapping[str, float], now: Mapping[str, float]) -> str:
        """Returns a warning where the chosen completions lose probability while the margin grows, or nothing."""
        chosen, margin = "eval_logps/chosen", "eval_rewards/margins"
        if not {chosen, margin} <= before.keys() & now.keys():
            return ""
        fallen = before[chosen] - now[chosen]
        if fallen <= FALL or now[margin] <= before[margin]:
            return ""
        return (
            f"warning: the chosen completions have lost {fallen:.1f} nats (log-probability {before[chosen]:.1f} -> "
            f"{now[chosen]:.1f}) while the margin grew ({before[margin]:.2f} -> {now[margin]:.2f}): the policy moves "
            "to text that is in no pair. Lower the learning rate, raise config.loss.beta, or add the SFT term (of "
            "pairs: config.loss.names=\"('dpo', 'sft')\")"
        )


def of_policy(held: Any, model: Model, reference: Any) -> dict[str, float]:
    """Returns a policy's KL to its reference on its own samples, where there is one and it is asked for."""
    if not held.kl_prompts or reference is None:
        return {}
    return policy_kl.sampled(
        model.params,
        reference,
        held.kl_prompts,
        config=held.config,
        max_new_tokens=held.max_new_tokens,
        stop_ids=model.stop_ids,
        batch_size=held.generate_batch,
        seed=held.seed,
    )


def _without_perplexity(numbers: dict[str, float]) -> dict[str, float]:
    """Returns numbers without the perplexity, which a loss that is not one of tokens does not have."""
    return {name: value for name, value in numbers.items() if name != "eval_perplexity"}


def build(
    rows: Sequence[candidates.Candidates],
    source: Mapping[str, dict[str, Any]],
    tok: tokenizer.Tokenizer,
    section: Mapping[str, Any],
    *,
    batches: list[Any],
    places: by_row.Places,
    labels: bool,
    config: ModelConfig,
    generates: bool,
    seed: int,
) -> HeldOutPreferences:
    """Returns the set of these rows, in `batches`; `source` holds what they were made of by their places.

    `section` is the config's `eval`; `labels` says what the loss is of; `generates` whether the model answers prompts,
    as a reward model does not.
    """
    check = lookup.lookup("ftjax.evals", section["check"]) if section["check"] and generates else None
    found = [preferences.from_row(source[row.where], row.where) for row in rows]
    told = [
        held_out.known_by(source[row.where], _asking(one.prompt), _reference(row, tok))
        for row, one in zip(rows, found, strict=True)
    ]
    asked = [n for n, one in enumerate(told) if one.reference is not None] if generates else []
    asked = asked if check else asked[: section["samples"]]
    items = [_item(rows[n], found[n], told[n]) for n in asked]
    held_out.try_check(check, section["check"], items, [rows[n].where for n in asked])
    return HeldOutPreferences(
        rows=len(rows),
        told=told,
        batches=batches,
        places=places,
        labels=labels,
        items=items,
        asked=asked,
        check=check,
        max_new_tokens=section["max_new_tokens"],
        generate_batch=section["generate_batch"],
        config=config,
        kl_prompts=[row.prompt.tolist() for row in rows[: section["kl_prompts"]]] if generates else [],
        seed=seed,
    )


def best(row: candidates.Candidates) -> int | None:
    """Returns which completion is the worse one of no pair, or has the highest label; None where all are bad."""
    if row.pairs:
        worse = {n for _, n in row.pairs}
        return next(n for n, _ in row.pairs if n not in worse)
    top = max(range(len(row.labels)), key=lambda n: row.labels[n])
    return top if row.labels[top] > 0 else None


def _reference(row: candidates.Candidates, tok: tokenizer.Tokenizer) -> str | None:
    """Returns the text of the best completion of a row; None where all are bad."""
    at = best(row)
    return None if at is None else tok.decode(row.completions[at].tolist(), skip_special=True).strip()


def _asking(prompt: str | preferences.Turns) -> str:
    """Returns the last turn of a user in a prompt, or the whole of a text."""
    return prompt if isinstance(prompt, str) else next((t.content for t in reversed(prompt) if t.role == "user"), "")


def _item(row: candidates.Candidates, record: preferences.Preference, told: by_row.Told) -> tasks.Item:
    """Returns the prompt of a row as a question, whose reference is the best completion."""
    prompt = record.prompt
    assert told.reference is not None
    turns = (
        [{"role": "user", "content": prompt}]
        if isinstance(prompt, str)
        else [{"role": turn.role, "content": turn.content} for turn in prompt]
    )
    whole = [*turns, {"role": "assistant", "content": told.reference}]
    item_row = {**record.extra, "prompt": turns, "messages": whole}
    return tasks.Item(row.prompt.tolist(), item_row, told.prompt, told.reference)
