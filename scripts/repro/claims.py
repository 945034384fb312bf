"""Two claims of the guide, from the rows of their sweeps: LoRA against full fine-tuning, QLoRA against LoRA (E3)."""

from collections.abc import Mapping, Sequence
import statistics
from typing import Any

from ftjax.runs import sweeps
from scripts.repro.check import Check
from scripts.repro.ranks import LOSS, best, full, rate, spread

BEFORE, SCORE = "before.eval_loss", "after.eval_score"


def method(group: sweeps.Group) -> str:
    """Returns what was trained, whatever the rate."""
    if full(group):
        return "full"
    where = ", attention alone" if "adapter.targets" in group.changes else ""
    return f"LoRA r{group.changes['adapter.rank']}{where}"


def winners(rows: Sequence[sweeps.Row]) -> dict[str, sweeps.Group]:
    """Returns the group of each method at its best rate."""
    by: dict[str, list[sweeps.Group]] = {}
    for group in sweeps.group(rows):
        by.setdefault(method(group), []).append(group)
    return {name: best(groups) for name, groups in by.items() if any(g.values(LOSS) for g in groups)}


def lora_vs_full(rows: Sequence[sweeps.Row]) -> str:
    """Returns the table: each method at its best rate, and its share of what full fine-tuning gains."""
    found = winners(rows)
    top = found["full"]
    start, gain = top.mean(BEFORE), top.mean(BEFORE) - top.mean(LOSS)
    scored = bool(top.values(SCORE))
    head = ["", "trained", "rate", "seeds", "held-out loss", "gain, of full's"]
    head += ["right answers", "of full's"] if scored else []
    before = ["base", "", "", "", f"{start:.4f}", ""]
    before += [f"{top.mean('before.eval_score'):.3f}", ""] if scored else []
    lines = [head, ["---"] * len(head), before]
    for name, group in found.items():
        share = statistics.fmean((start - loss) / gain for loss in group.values(LOSS))
        line = [name, f"{group.mean('trainable_share'):.2%}", f"{rate(group):g}", str(len(group.values(LOSS)))]
        line += [spread(group.values(LOSS)), f"{share:.1%}"]
        if scored:
            line += [spread(group.values(SCORE), 3), f"{group.mean(SCORE) / top.mean(SCORE):.1%}"]
        lines.append(line)
    return _table(lines)


def dense(rows: Sequence[sweeps.Row], changes: Mapping[str, Any]) -> list[sweeps.Row]:
    """Returns the rows of the first sweep that made these changes (and a seed), as the float32 rows of the second."""
    same = [row for row in rows if {k: v for k, v in row.changes.items() if k != sweeps.SEED} == dict(changes)]
    seed = lambda row: {key: value for key, value in row.changes.items() if key == sweeps.SEED}
    return [row._replace(changes={**seed(row), "quant.format": "none"}) for row in same]


def qlora_vs_lora(rows: Sequence[sweeps.Row]) -> tuple[str, list[Check]]:
    """Returns the table of the formats, and the checks of E3."""
    found = {g.changes["quant.format"]: g for g in sweeps.group(rows) if g.values(LOSS)}
    lora, double = found["none"], found["nf4-dq"]
    gain = lora.mean(BEFORE) - lora.mean(LOSS)
    scored = bool(lora.values(SCORE))
    head = ["format", "seeds", "loss before", "loss after", "gap to LoRA", "gain, of LoRA's"]
    lines = [[*head, *(["right answers"] if scored else [])]]
    lines.append(["---"] * len(lines[0]))
    share = lambda group: (lora.mean(BEFORE) - group.mean(LOSS)) / gain
    for name, group in found.items():
        line = ["float32" if name == "none" else name, str(len(group.values(LOSS))), f"{group.mean(BEFORE):.4f}"]
        line += [spread(group.values(LOSS)), f"{group.mean(LOSS) - lora.mean(LOSS):+.4f}", f"{share(group):.1%}"]
        lines.append(line + ([spread(group.values(SCORE), 3)] if scored else []))
    gap, first = double.mean(LOSS) - lora.mean(LOSS), double.mean(BEFORE) - lora.mean(BEFORE)
    checks = [
        Check("nf4-dq less LoRA after training, nats", "at most .015", f"{gap:+.4f}", gap <= 0.015),
        Check("that gap", "at most .75 of the gap before", f"{gap:+.4f} and {first:+.4f}", gap <= 0.75 * first),
        Check("improvement of nf4-dq", "at least 95% of LoRA's", f"{share(double):.1%}", share(double) >= 0.95),
    ]
    return _table(lines), checks


def _table(lines: Sequence[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
