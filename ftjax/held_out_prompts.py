"""Held-out prompts, and what a policy makes of them: the score of its greedy answers, the KL, what it forgets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ftjax import held_out, held_out_preferences, lookup
from ftjax.data import tokenizer
from ftjax.data.prompts import Prompt
from ftjax.evals import tasks
from ftjax.inference import Model
from ftjax.models.config import ModelConfig

REWARD = "eval_reward"


class HeldOutPrompts(NamedTuple):
    """A held-out set of prompts, ready to be measured."""

    rows: int
    items: list[tasks.Item]
    check: tasks.Check | None
    max_new_tokens: int
    generate_batch: int
    config: ModelConfig
    text: held_out_preferences.Text | None
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

    def measure(
        self, sums: held_out.Sums, model: Model, reference: Any
    ) -> tuple[dict[str, float], list[tasks.Answer]]:  # fmt: skip
        """Returns all numbers, and the answers; the KL only where there are weights of a reference."""
        del sums
        given = self.answers(model, self.items)
        numbers = {REWARD: tasks.mean_score(given)} if self.check else {}
        return numbers | held_out_preferences.of_policy(self, model, reference), given

    def remark(self, before: Mapping[str, float], now: Mapping[str, float]) -> str:
        """Returns what a user should be told of an evaluation: `watch.Watch` compares it with the rewards."""
        del before, now
        return ""


def build(
    rows: Sequence[Prompt],
    tok: tokenizer.Tokenizer,
    section: Mapping[str, Any],
    *,
    template_name: str | None,
    config: ModelConfig,
    seed: int,
) -> HeldOutPrompts:
    """Returns the set of these prompts; `section` is the config's `eval`."""
    check = lookup.lookup("ftjax.evals", section["check"]) if section["check"] else None
    asked = rows if check else rows[: section["samples"]]
    items = [_item(one) for one in asked]
    if check and items:
        held_out.try_check(check, section["check"], items[0], rows[0].where)
    return HeldOutPrompts(
        rows=len(rows),
        items=items,
        check=check,
        max_new_tokens=section["max_new_tokens"],
        generate_batch=section["generate_batch"],
        config=config,
        text=held_out_preferences.text_of(section, tok, template_name, config),
        kl_prompts=[one.ids.tolist() for one in rows[: section["kl_prompts"]]],
        seed=seed,
    )


def _item(one: Prompt) -> tasks.Item:
    """Returns a prompt as a question, with the answer of its row as the reference where it has one."""
    reference = str(one.row.get("reference", one.row.get("answer", "")))
    turns = [*one.row.get("prompt_messages", [{"role": "user", "content": one.text}])]
    row = {**one.row, "messages": [*turns, {"role": "assistant", "content": reference}]}
    return tasks.Item(one.ids.tolist(), row, one.text, reference)
