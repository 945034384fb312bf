"""Held-out prompts, and what a policy makes of them: the score of its greedy answers, and the KL."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ftjax import held_out, held_out_preferences, lookup
from ftjax.data.prompts import Prompt
from ftjax.evals import by_row, tasks
from ftjax.inference import Model
from ftjax.models.config import ModelConfig

REWARD = "eval_reward"


class HeldOutPrompts(NamedTuple):
    """A held-out set of prompts, ready to be measured."""

    rows: int
    told: list[by_row.Told]  # what each row is known by
    items: list[tasks.Item]
    check: tasks.Check | None
    max_new_tokens: int
    generate_batch: int
    config: ModelConfig
    kl_prompts: list[list[int]]
    seed: int

    def during(self, sums: held_out.Sums, model: Callable[[], Model]) -> dict[str, float]:
        """Returns what is measured while training: the score, and less it as the loss that patience goes by."""
        del sums
        if not self.check:
            return {}
        reward = tasks.mean_score(self.answers(model(), self.items))
        return {REWARD: reward, "eval_loss": -reward}

    def answers(self, model: Model, items: Sequence[tasks.Item]) -> list[tasks.Answer]:
        """Returns greedy answers to some of the prompts, with their scores (NaN where there is no check)."""
        return held_out.ask(self, model, items)

    def measure(self, evaluate: by_row.Evaluate, model: Model, reference: Any) -> by_row.Measured:
        """Returns all numbers, the answers, and all of it by row; a KL only where there are weights of a reference."""
        del evaluate
        given = self.answers(model, self.items)
        numbers = {REWARD: tasks.mean_score(given)} if self.check else {}
        rows: list[by_row.Row] = [{} for _ in self.told]
        by_row.add_answers(rows, given, range(len(given)), held_out.counter(model))
        return by_row.Measured(numbers | held_out_preferences.of_policy(self, model, reference), given, rows)

    def remark(self, before: Mapping[str, float], now: Mapping[str, float]) -> str:
        """Returns what a user should be told of an evaluation: `watch.Watch` compares it with the rewards."""
        del before, now
        return ""


def build(
    rows: Sequence[Prompt],
    source: Mapping[str, dict[str, Any]],
    section: Mapping[str, Any],
    *,
    config: ModelConfig,
    seed: int,
) -> HeldOutPrompts:
    """Returns the set of these prompts; `section` is the config's `eval`, `source` has their rows by place."""
    check = lookup.lookup("ftjax.evals", section["check"]) if section["check"] else None
    items = [_item(one) for one in rows]
    held_out.try_check(check, section["check"], items, [row.where for row in rows])
    return HeldOutPrompts(
        rows=len(rows),
        told=[
            held_out.known_by(source[one.where], item.prompt, item.reference or None)
            for one, item in zip(rows, items, strict=True)
        ],
        items=items if check else items[: section["samples"]],
        check=check,
        max_new_tokens=section["max_new_tokens"],
        generate_batch=section["generate_batch"],
        config=config,
        kl_prompts=[one.ids.tolist() for one in rows[: section["kl_prompts"]]],
        seed=seed,
    )


def _item(one: Prompt) -> tasks.Item:
    """Returns a prompt as a question, with the answer of its row as the reference where it has one."""
    reference = str(one.row.get("reference", one.row.get("answer", "")))
    turns = [*one.row.get("prompt_messages", [{"role": "user", "content": one.text}])]
    row = {**one.row, "messages": [*turns, {"role": "assistant", "content": reference}]}
    return tasks.Item(one.ids.tolist(), row, one.text, reference)
