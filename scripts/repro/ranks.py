"""E4 and E5: what LoRA learns and forgets by rank, rate and layers, on S1 (Schulman 2025; Biderman et al. 2024).

Learning is the loss on corpus B, to which S1 is adapted; forgetting is the loss on corpus A, on which it was trained.
"""

from collections.abc import Callable, Sequence
import itertools
from pathlib import Path
import statistics
from typing import Any

from ftjax import config as configs
from ftjax import evaluation
from ftjax.runs import atomic, sweeps
from scripts.repro.check import Check

LOSS = "after.eval_loss"
RANKS = (1, 4, 16, 64)
SWEEP = "configs/repro/s1_lora.py"


def full(group: sweeps.Group) -> bool:
    """Returns whether every weight was trained."""
    return group.changes.get("adapter.name") == "none"


def rate(group: sweeps.Group) -> float:
    """Returns the learning rate."""
    return group.changes["optimizer.learning_rate"]


def of_rank(groups: Sequence[sweeps.Group], rank: int) -> list[sweeps.Group]:
    """Returns the groups of LoRA on all linears of this rank."""
    return [g for g in groups if g.changes.get("adapter.rank") == rank and "adapter.targets" not in g.changes]


def best(groups: Sequence[sweeps.Group]) -> sweeps.Group:
    """Returns the group of least loss at the first seed, at which every rate was tried."""
    return min((g for g in groups if g.values(LOSS)), key=lambda g: g.values(LOSS)[0])


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Returns mean and standard deviation."""
    more = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{more}"


def e4(rows: Sequence[sweeps.Row]) -> list[Check]:
    """Returns the checks of E4."""
    groups = sweeps.group(rows)
    whole = [g for g in groups if full(g)]
    top = best(whole)
    lora = {rank: best(of_rank(groups, rank)) for rank in RANKS}
    checks = [_tried("full fine-tuning", whole, "3e-4/1e-3/3e-3/1e-2: 1.4405/1.3572/1.3176/1.3590")]
    for rank in RANKS[1:]:
        checks.append(_tried(f"LoRA r{rank}", of_rank(groups, rank), "r16: 1.3807/1.3530/2.33" if rank == 16 else ""))
    means = [lora[rank].mean(LOSS) for rank in RANKS]
    shown = ", ".join(f"r{rank} {spread(lora[rank].values(LOSS))}" for rank in RANKS)
    falls = all(a > b for a, b in itertools.pairwise(means))
    checks.append(Check("B-NLL by rank, best rate", "falls; 1.5186 1.4276 1.3530 1.3338", shown, falls))
    gap = means[-1] - top.mean(LOSS)
    shown = f"{gap:+.4f} (full {spread(top.values(LOSS))})"
    checks.append(Check("r64 less full", "in [0, .03]", shown, 0 <= gap <= 0.03))
    attention, mlp = (_only(groups, name) for name in ("q_proj", "down_proj"))
    ahead, sizes = (
        attention.mean(LOSS) - mlp.mean(LOSS),
        [int(g.mean("trainable_parameters")) for g in (mlp, attention)],
    )
    shown = f"{ahead:+.4f} ({mlp.mean(LOSS):.4f} with {sizes[0]:,}, {attention.mean(LOSS):.4f} with {sizes[1]:,})"
    good = ahead >= 0.02 and sizes[0] <= sizes[1]
    checks.append(Check("MLP alone ahead of attention alone, with no more parameters", "at least .02", shown, good))
    ratio = rate(lora[16]) / rate(top)
    checks.append(Check("best rate, LoRA r16 over full", "in [2, 15]", f"{ratio:.2f}", 2 <= ratio <= 15))
    tried = sorted({rate(g) for g in of_rank(groups, 16)})
    notches = [tried.index(rate(lora[rank])) for rank in RANKS[1:]]
    shown = ", ".join(f"r{rank} {rate(lora[rank]):g}" for rank in RANKS[1:])
    near = max(notches) - min(notches) <= 1
    checks.append(Check("best rates of r4, r16, r64", "within one notch", shown, near))
    return checks


def e5(rows: Sequence[sweeps.Row], forgot: dict[str, float], base: float) -> list[Check]:
    """Returns the checks of E5; `forgot` is the loss on A by the name of the run, `base` that of S1."""
    groups = sweeps.group(rows)
    top, lora = best([g for g in groups if full(g)]), {rank: best(of_rank(groups, rank)) for rank in RANKS}
    on_a = lambda group: [forgot[row.name] for row in group.rows if row.name in forgot]
    mean_a = {rank: statistics.fmean(on_a(lora[rank])) for rank in RANKS}
    shown = ", ".join(f"r{rank} {spread(on_a(lora[rank]))}" for rank in RANKS)
    learned = spearman(RANKS, [lora[rank].mean(LOSS) for rank in RANKS])
    lost = spearman(RANKS, [mean_a[rank] for rank in RANKS])
    checks = [
        Check("A-NLL of the base", "1.272", f"{base:.4f}", None),
        Check("A-NLL by rank", "1.518 1.566 1.632 1.641", shown, None),
        Check("Spearman of rank and B-NLL", "-1", f"{learned:+.2f}", learned == -1),
        Check("Spearman of rank and A-NLL", "at least .8", f"{lost:+.2f}", lost >= 0.8),
    ]
    a_full, b_full, b_lora = statistics.fmean(on_a(top)), top.mean(LOSS), lora[16].mean(LOSS)
    shown = f"A {mean_a[16]:.4f} and {a_full:.4f}, B {b_lora:.4f} and {b_full:.4f}"
    good = mean_a[16] < a_full and b_lora > b_full
    checks.append(Check("r16 forgets less and learns less than full", "A below, B above", shown, good))
    gentle = next(g for g in groups if full(g) and rate(g) == 1e-3)
    shown = f"B {gentle.mean(LOSS):.4f}, A {spread(on_a(gentle))}"
    checks.append(Check("full at 1e-3: no better trade-off is claimed", "B 1.357, A 1.523", shown, None))
    return checks


def compared(rows: Sequence[sweeps.Row]) -> list[sweeps.Row]:
    """Returns the runs whose forgetting E5 asks for."""
    groups = sweeps.group(rows)
    gentle = [g for g in groups if full(g) and rate(g) == 1e-3]
    chosen = [best([g for g in groups if full(g)]), *(best(of_rank(groups, rank)) for rank in RANKS), *gentle]
    return [row for group in chosen for row in group.rows]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns the rank correlation; ties count in their order."""
    order = lambda values: [sorted(values).index(value) for value in values]
    return statistics.correlation(order(x), order(y))


def forgetting(folder: Path, rows: Sequence[sweeps.Row], heldout: Path, say: Callable[[str], None]) -> dict[str, float]:
    """Returns the loss of each finished run on another file, and keeps it in the folder of the run."""
    found = {}
    for row in rows:
        kept = folder / row.name / "forgetting.txt"
        if row.status != "done":
            continue
        if not kept.exists():
            say(f"measuring {row.name} on {heldout}")
            atomic.write_text(kept, f"{loss_of(f'run={folder / row.name}', heldout)}\n")
        found[row.name] = float(kept.read_text())
    return found


def loss_of(made: str, heldout: Path) -> float:
    """Returns the loss of a run or model on a file."""
    import jax

    config = configs.load(f"configs/eval/held_out.py:{made},data={heldout}")
    built = evaluation.build(
        configs.override(config, {"eval.samples": 0, "eval.batch_size": 64, "data.max_length": 64})
    )
    loss = evaluation.measure(built).measured.numbers["eval_loss"]
    jax.clear_caches()
    return loss


def _only(groups: Sequence[sweeps.Group], name: str) -> sweeps.Group:
    return next(g for g in groups if name in str(g.changes.get("adapter.targets", "")))


def _tried(what: str, groups: Sequence[sweeps.Group], expected: str) -> Check:
    shown: list[Any] = [
        f"{rate(g):g} {g.values(LOSS)[0]:.4f}" if g.values(LOSS) else f"{rate(g):g} failed" for g in groups
    ]
    return Check(f"{what}, rates at seed 0: B-NLL", expected, ", ".join(shown), None)
