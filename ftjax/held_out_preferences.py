"""Held-out preferences, and what a policy or a reward model does on them.

A policy: loss, reward accuracy and margins, its own answers and their score, the KL to the reference on its samples,
perplexity on ordinary text. A reward model: loss and accuracy; its report at the end of a run is `reward_report`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ftjax import held_out, lookup
from ftjax.data import batch as arrays
from ftjax.data import candidates, encode, loader, preferences, tokenizer
from ftjax.evals import likelihood, perplexity, policy_kl, tasks
from ftjax.inference import Model
from ftjax.models.config import ModelConfig

FALL = 1.0  # nats by which a log-probability must fall to be remarked on


class Text(NamedTuple):
    """Ordinary text, whose perplexity tells what the model forgets."""

    batches: list[Any]
    units: perplexity.Units


class HeldOutPreferences(NamedTuple):
    """A held-out set of preferences, ready to be measured."""

    rows: int
    batches: list[Any]
    items: list[tasks.Item]
    check: tasks.Check | None
    max_new_tokens: int
    generate_batch: int
    config: ModelConfig
    text: Text | None
    kl_prompts: list[list[int]]
    seed: int

    def loss(self, sums: held_out.Sums) -> dict[str, float]:
        """Returns the mean loss of a pair (or of a labelled completion), and the means of the loss's own metrics."""
        found = perplexity.evaluate(sums, self.batches, perplexity.Units(words=0, bytes=0))
        found.pop("eval_perplexity")
        return found

    def answers(self, model: Model, items: Sequence[tasks.Item]) -> list[tasks.Answer]:
        """Returns greedy answers to some of the prompts, with their scores (NaN where there is no check)."""
        return held_out.ask(self, model, items)

    def measure(
        self, sums: held_out.Sums, model: Model, reference: Any
    ) -> tuple[dict[str, float], list[tasks.Answer]]:  # fmt: skip
        """Returns all numbers, and the answers; the KL only where there are weights of a reference."""
        numbers, given = self.loss(sums), self.answers(model, self.items)
        if self.check:
            numbers["eval_reward"] = tasks.mean_score(given)
        return numbers | of_policy(self, model, reference), given

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
    """Returns a policy's KL to its reference, if there is one, and its perplexity on ordinary text, as asked for."""
    numbers: dict[str, float] = {}
    if held.kl_prompts and reference is not None:
        numbers |= policy_kl.sampled(
            model.params,
            reference,
            held.kl_prompts,
            config=held.config,
            max_new_tokens=held.max_new_tokens,
            stop_ids=model.stop_ids,
            batch_size=held.generate_batch,
            seed=held.seed,
        )
    if held.text is not None:
        logps = lambda batch: likelihood.of_rows(model.params, batch, config=held.config).sum()
        sums_of: held_out.Sums = lambda batch: (-logps(batch), batch.weights.sum(), {})
        text = perplexity.evaluate(sums_of, held.text.batches, held.text.units)
        numbers |= {name.replace("eval_", "eval_text_"): value for name, value in text.items()}
    return numbers


def text_of(
    section: Mapping[str, Any], tok: tokenizer.Tokenizer, template_name: str | None, config: ModelConfig
) -> Text | None:  # fmt: skip
    """Returns the ordinary text of `eval.text`, in batches; None without it."""
    if not section["text"]:
        return None
    ordinary, _ = encode.encode_file(
        section["text"], tok, template_name=template_name, max_length=config.context, truncation="drop",
        train_on="assistant",
    )  # fmt: skip
    ordinary = ordinary[: section["rows"]]
    longest = -(-max(len(one.ids) for one in ordinary) // 64) * 64
    return Text(
        batches=loader.eval_batches(
            ordinary,
            collator=arrays.EXAMPLES,
            layout="packed",
            batch_size=section["batch_size"],
            length=longest,
            buckets=(),
            shard=loader.Shard(jax.process_index(), jax.process_count()),
        ),
        units=held_out.units(ordinary, tok),
    )


def build(
    rows: Sequence[candidates.Candidates],
    source: Sequence[preferences.Preference],
    tok: tokenizer.Tokenizer,
    section: Mapping[str, Any],
    *,
    batches: list[Any],
    template_name: str | None,
    config: ModelConfig,
    generates: bool,
    seed: int,
) -> HeldOutPreferences:
    """Returns the set of these rows, in `batches`; `source` holds the records that they were made of, and maybe more.

    `section` is the config's `eval`; `generates` says whether the model answers prompts, as a reward model does not.
    """
    check = lookup.lookup("ftjax.evals", section["check"]) if section["check"] and generates else None
    by_place = {record.where: record for record in source}
    asked = [row for row in rows if best(row) is not None] if generates else []
    asked = asked if check else asked[: section["samples"]]
    items = [_item(row, by_place[row.where], tok) for row in asked]
    if check and items:
        held_out.try_check(check, section["check"], items[0], rows[0].where)
    return HeldOutPreferences(
        rows=len(rows),
        batches=batches,
        items=items,
        check=check,
        max_new_tokens=section["max_new_tokens"],
        generate_batch=section["generate_batch"],
        config=config,
        text=text_of(section, tok, template_name, config) if generates else None,
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


def _item(row: candidates.Candidates, record: preferences.Preference, tok: tokenizer.Tokenizer) -> tasks.Item:
    """Returns the prompt of a row as a question, whose reference is the best completion."""
    at = best(row)
    assert at is not None
    reference = tok.decode(row.completions[at].tolist(), skip_special=True).strip()
    prompt = record.prompt
    turns = (
        [{"role": "user", "content": prompt}]
        if isinstance(prompt, str)
        else [{"role": turn.role, "content": turn.content} for turn in prompt]
    )
    text = next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "")
    whole = [*turns, {"role": "assistant", "content": reference}]
    return tasks.Item(row.prompt.tolist(), {**record.extra, "prompt": turns, "messages": whole}, text, reference)
