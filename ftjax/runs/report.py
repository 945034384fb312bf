"""What a run prints besides its progress: derived numbers at the start, before and after at the end."""

from collections.abc import Mapping, Sequence
import contextlib
import math
import os
from pathlib import Path
import shlex
from typing import Any

import rich.console
import rich.table
import rich.text

from ftjax.runs import console as consoles

FEW = 30  # rows; an interval of fewer is rough

LABELS = {
    "eval_score": "right answers",
    "eval_reward": "score of its answers",
    "eval_accuracy": "better one scored higher",
    "eval_rewards/accuracies": "better one preferred",
    "eval_rewards/margins": "margin of implicit rewards",
    "eval_logps/chosen": "log-probability of chosen",
    "eval_logps/rejected": "log-probability of rejected",
    "eval_sampled_kl": "KL to the reference, nats",
    "eval_loss": "loss, nats a token",
    "eval_perplexity": "perplexity, token",
    "eval_word_perplexity": "perplexity, word",
    "eval_byte_perplexity": "perplexity, byte",
    "eval_mean_token_accuracy": "next-token accuracy",
    "eval_retention_score": "retention, score",
    "eval_retention_loss": "retention, loss",
    "eval_retention_perplexity": "retention, perplexity",
}
CHANGED = {  # metrics of `change`, in the order in which they are told
    "score": ("eval_score", "eval_reward", "eval_retention_score"),
    "accuracy": ("eval_rewards/accuracies", "eval_accuracy"),
    "margin": ("eval_rewards/margins",),
    "loss": ("eval_loss", "eval_retention_loss"),
}


def label(name: str, numbers: Mapping[str, Any]) -> str:
    """Returns what the table calls a number; a loss without a perplexity is not one of tokens."""
    return "loss" if name == "eval_loss" and "eval_perplexity" not in numbers else LABELS[name]


def changed(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each metric that was measured row by row: its difference with the interval, and flips."""
    lines = []
    for name, change in summary["change"].items():
        flips = change.get("flips", {})
        for what in CHANGED:
            if what in change:
                line = _difference(what, change[what], name, summary["after"])
                lost = f"; {flips['won']} won, {flips['lost']} lost" if flips.get("of") == what else ""
                lines.append(line + lost)
    return lines


def _difference(what: str, found: Mapping[str, float], name: str, after: Mapping[str, float]) -> str:
    """Returns "right answers: 0.200 -> 0.845, +0.645 (0.57 to 0.71, p < 0.001)"."""
    fitting = [key for key in CHANGED[what] if ("retention" in key) == (name == "retention")]
    own = next((key for key in fitting if key in after), fitting[0])
    head = "retention loss" if own == "eval_retention_loss" else label(own, after)
    both = f"{head}: {consoles.short(found['before'])} -> {consoles.short(found['after'])}"
    if "p" not in found:
        return both
    p = "p < 0.001" if found["p"] < 0.001 else f"p = {found['p']:.2g}"
    undecided = ", undecided" if found["low"] <= 0 <= found["high"] else ""
    few = f", only {found['of']} rows" if found["of"] < FEW else ""
    ends = f"{found['low']:.3g} to {found['high']:.3g}" if math.isfinite(found["high"] - found["low"]) else "unknown"
    return f"{both}, {found['value']:+.3g} ({ends}, {p}{few}){undecided}"


def _print(what: rich.text.Text | rich.table.Table, *, soft_wrap: bool = False) -> None:
    """Prints; to a closed pipe nothing, because it must not end a run."""
    out = rich.console.Console(highlight=False)
    with consoles.unbroken(out):
        out.print(what, soft_wrap=soft_wrap)


def say(line: str) -> None:
    """Prints one line."""
    _print(rich.text.Text(line), soft_wrap=True)


def at_once(line: str) -> None:
    """Prints one line to standard error past every buffer: what a signal's handler may do."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())


def derived(facts: Mapping[str, str], data: str) -> None:
    """Prints the numbers that follow from a config, and the report on its data."""
    width = max(map(len, facts))
    for name, text in facts.items():
        say(f"{name:<{width}}  {text}")
    say(data)


def finished(summary: Mapping[str, Any], folder: Path) -> None:
    """Prints how a run ended: the table of before and after, samples side by side, and what to do next."""
    if summary["reason"] == "interrupted":
        say(f"saved at step {summary['step']:,}; go on with")
        say(f"  python scripts/train.py --workdir {shlex.quote(str(folder))} --resume")
        return
    if summary["reason"] == "patience":
        say(f"stopped at step {summary['step']:,}: stop.patience evaluations in a row were no better")
    ends = {when: summary[when] for when in ("before", "after")}
    _numbers("held-out", ends, title=f"{summary['rows'] or ''} held-out rows".strip())
    for line in changed(summary):
        say(line)
    _samples(summary["samples"], ("prompt", "reference", "before", "after"))
    _samples(summary["flipped"], ("flip", "prompt", "reference", "before", "after"), title="rows that flipped")
    gigabytes = summary.get("device_memory_peak_bytes", summary["memory_peak_bytes"]) / 1e9
    say(
        f"trained {summary['trainable_parameters']:,} of {summary['parameters']:,} parameters "
        f"({summary['trainable_share']:.2%}) for {summary['step']:,} steps, {summary['train_seconds']:.0f} s, "
        f"{summary['tokens_per_second']:,.0f} tokens/s, peak memory {gigabytes:.2f} GB"
    )
    say(f"everything is in {folder}; try")
    run = shlex.quote(str(folder))
    if summary["reward_model"]:
        say(f"  python scripts/score.py --run {run} --input FILE.jsonl --output SCORED.jsonl")
    else:
        say(f'  python scripts/generate.py --run {run} --prompt "..."')


def evaluated(
    model: str,
    numbers: Mapping[str, float],
    answers: Sequence[Mapping[str, Any]],
    rows: int,
    protocol: str,
    folder: Path,
) -> None:
    """Prints the table of an evaluation and its protocol, the sample answers, and where everything is."""
    _numbers("held-out", {model: numbers}, title=f"{rows:,} held-out rows")
    say(protocol)
    _samples(answers, ("prompt", "reference", "answer"))
    say(f"everything is in {folder}: evaluation.json, answers.jsonl")


def read_through(model: str, numbers: Mapping[str, float], protocol: str, folder: Path) -> None:
    """Prints what a model predicts of a long text, by which protocol, and where everything is."""
    _numbers("text", {model: numbers}, title=None)
    say(protocol)
    say(f"everything is in {folder}: evaluation.json")


def benchmarked(found: Mapping[str, Any], folder: Path) -> None:
    """Prints a line for each metric of each task, and where everything is."""
    table = rich.table.Table("task", "metric", "value", "interval", "of")
    for task, metrics in found["tasks"].items():
        for name, one in metrics.items():
            ends = f"{one['low']:.3f} to {one['high']:.3f}" if "low" in one else ""
            table.add_row(task, name, consoles.short(one["value"]), ends, str(one.get("of", "")))
    _print(table)
    say(f"everything is in {folder}: benchmarks.json, samples.jsonl")


def judged(found: Mapping[str, Any], folder: Path) -> None:
    """Prints what a judge's verdicts come to, what speaks against them, what they cost, and where everything is."""
    table = rich.table.Table("judged", "", title=f"{found['judged']:,} of {found['pairs']:,} pairs")
    table.add_row("win rate, a tie is half", share(found["win_rate"]))
    table.add_row("wins, ties, losses", f"{found['wins']}, {found['ties']}, {found['losses']}")
    table.add_row("answers without a verdict", f"{found['unparsable_answers']} of {found['answers']}")
    if found["position"]:
        table.add_row("verdict changes on swap", share(found["position"]["flip_rate"]))
        table.add_row("first place preferred", share(found["position"]["first_preferred"]))
    if found["ratings"]:
        table.add_row("mean ratings", f"{found['ratings']['a']:.2f}, {found['ratings']['b']:.2f}")
    table.add_row("longer answer wins", share(found["length"]["longer_wins"]))
    people = found["human"]
    if people:
        table.add_row("agrees with a person", share(people["agreement"]))
        table.add_row("a person with another", share(people["between_people"]))
        table.add_row("kappa with the majority", f"{people['kappa']['value']:.2f}")
        fixed = people["corrected_win_rate"]
        table.add_row(
            "win rate, the judge's error corrected",
            share(fixed) if fixed else "unknown: few labels, or no better than chance",
        )
    _print(table)
    say(found["verdict"])
    cost = found["cost"]
    money = "" if cost["money"] is None else f", {cost['money']:.4g} paid"
    say(
        f"{cost['requests']:,} requests, {cost['asked_now']:,} asked now, {cost['retries_now']:,} retries, "
        f"{cost['prompt_tokens'] + cost['answer_tokens']:,} tokens{money}"
    )
    say(f"everything is in {folder}: judge.json, judgments.jsonl")


def share(found: Mapping[str, float] | None) -> str:
    """Returns a share with its interval; a dash where there is none."""
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})" if found else "-"


def _numbers(of: str, columns: Mapping[str, Mapping[str, float]], *, title: str | None) -> None:
    """Prints a row for each number that the last column has and that has a label."""
    table = rich.table.Table(of, *columns, title=title)
    *_, last = columns.values()
    for name in LABELS:
        if name in last:
            table.add_row(label(name, last), *(consoles.short(numbers[name]) for numbers in columns.values()))
    _print(table)


def _samples(rows: Sequence[Mapping[str, Any]], columns: tuple[str, ...], title: str = "samples") -> None:
    table = rich.table.Table(*columns, title=title, show_lines=True)
    for row in rows:
        table.add_row(*(rich.text.Text(str(row[column])) for column in columns))
    if rows:
        _print(table)
