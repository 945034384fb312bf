"""What a run prints besides its progress: derived numbers at the start, before and after at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console
import rich.table
import rich.text

from ftjax.runs import console as consoles

LABELS = {
    "eval_score": "right answers",
    "eval_loss": "loss, nats a token",
    "eval_perplexity": "perplexity, token",
    "eval_word_perplexity": "perplexity, word",
    "eval_byte_perplexity": "perplexity, byte",
    "eval_mean_token_accuracy": "next-token accuracy",
}


def _console() -> rich.console.Console:
    return rich.console.Console(highlight=False)


def say(line: str) -> None:
    """Prints one line."""
    _console().print(rich.text.Text(line), soft_wrap=True)


def derived(facts: Mapping[str, str], data: str) -> None:
    """Prints the numbers that follow from a config, and the report on its data."""
    width = max(map(len, facts))
    for name, text in facts.items():
        say(f"{name:<{width}}  {text}")
    say(data)


def finished(summary: Mapping[str, Any], folder: Path, config: str) -> None:
    """Prints how a run ended: the table of before and after, samples side by side, and what to do next."""
    if summary["reason"] == "interrupted":
        say(f"saved at step {summary['step']:,}; go on with")
        say(f"  python scripts/train.py --config {config} --workdir {folder} --resume")
        return
    table = rich.table.Table("held-out", "before", "after", title=f"{summary['rows'] or ''} held-out rows".strip())
    for name, label in LABELS.items():
        if name in summary["after"]:
            table.add_row(label, consoles.short(summary["before"][name]), consoles.short(summary["after"][name]))
    out = _console()
    out.print(table)
    samples = rich.table.Table("prompt", "reference", "before", "after", title="samples", show_lines=True)
    for row in summary["samples"]:
        samples.add_row(*(rich.text.Text(str(row[k])) for k in ("prompt", "reference", "before", "after")))
    if summary["samples"]:
        out.print(samples)
    gigabytes = summary.get("device_memory_peak_bytes", summary["memory_peak_bytes"]) / 1e9
    say(
        f"trained {summary['trainable_parameters']:,} of {summary['parameters']:,} parameters "
        f"({summary['trainable_share']:.2%}) for {summary['step']:,} steps, {summary['train_seconds']:.0f} s, "
        f"{summary['tokens_per_second']:,.0f} tokens/s, peak memory {gigabytes:.2f} GB"
    )
    say(f"everything is in {folder}; try")
    say(f'  python scripts/generate.py --run {folder} --prompt "..."')
