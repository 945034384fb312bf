"""Reproduces published results on small models, and says of each rule PASS or FAIL with the numbers.

python scripts/repro/run.py [NAME ..] [--folder runs/repro]     # make repro; all names: --help

Runs of the sweeps that are done are not done again, so a second call goes on. Exit status 1 when a rule fails. The data
for SmolLM2 are given by path: --e2e FILE adds it to `claims` and `qlora`, --persona DIR to `selection` (both need
`make smollm2`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
import sys
from typing import Any

from ftjax.errors import UserError
from scripts import cli

SMOLLM2 = "model=smollm2-135m,data={train},eval={heldout}"
CONFIGS = {"frontier": "e7 and e8", "overoptimised": "e9", "kin": "kin"}  # files of configs/repro/, and who reads them


class Bench:
    """Where the reproductions work, and what they share: S1, and sweeps in this process."""

    def __init__(self, folder: Path, specs: Mapping[str, str], persona: Path | None) -> None:
        self.folder = folder
        self.persona = persona  # data for SmolLM2 in `selection`
        self.specs = specs  # the config of each of CONFIGS
        self.s1 = folder / "s1"

    def train(self, folder: Path, spec: str, entries: Mapping[str, dict[str, Any]]) -> list[Any]:
        """Returns the rows of a sweep after its missing runs."""
        from ftjax import sweep
        from ftjax.runs import report

        train, metric = sweep.in_this_process, "after.eval_loss"
        return sweep.sweep(folder, spec, entries, common={}, train=train, metric=metric, say=report.say)

    def sweep(self, name: str, arg: str = "", folder: str = "") -> list[Any]:
        """Returns the rows of the sweep of a config file in configs/repro/."""
        from ftjax import sweep

        spec = f"configs/repro/{name}.py{f':{arg}' if arg else ''}"
        return self.train(self.folder / (folder or name), spec, sweep.plan(spec, {}))

    def base(self) -> Path:
        """Returns the folder of S1's base, trained where it is missing."""
        from ftjax import sweep
        from ftjax.runs import report
        from scripts.repro import s1

        report.say(f"S1's corpora: {s1.write(self.s1)}")
        run = self.s1 / "base"
        if not (run / "DONE").exists():
            report.say("training S1's base: 2,500 steps, some minutes")
            sweep.train_here(sweep.Job(run.name, run.name, "configs/repro/s1_base.py", {}, run))
        return run / "model"

    def enumerable(
        self, name: str, measure: Callable[[int, Mapping[str, Any]], dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, Any], Path]:
        """Returns what one of CONFIGS measures on enumerable responses at every seed, its settings, and its folder."""
        from ftjax import config as configs
        from ftjax.runs import report
        from scripts.repro import frontier

        settings, folder = configs.load(self.specs[name]).to_dict(), self.folder / name
        return frontier.all_seeds(folder, settings, measure, report.say), settings, folder


def claims(bench: Bench, e2e: Path | None) -> str:
    """Returns the table of LoRA against full fine-tuning."""
    from scripts.repro import claims as made

    text = made.lora_vs_full(bench.sweep("lora_vs_full"))
    if e2e is None:
        return text
    rows = bench.sweep("lora_vs_full", smollm2(bench, e2e), "lora_smollm2")
    return f"{text}\nSmolLM2\n\n{made.lora_vs_full(rows)}{bleu(bench.folder / 'lora_smollm2', rows)}"


def bleu(folder: Path, rows: list[Any]) -> str:
    """Returns BLEU before and after each run, as lines; nothing where sacrebleu is not installed."""
    from scripts.repro import e2e

    if not e2e.has_bleu():
        return ""
    heldout = folder.parent / "e2e" / "heldout.jsonl"
    both = lambda row: (e2e.bleu(folder / row.name, heldout, column) for column in ("before", "after"))
    lines = ["- {}: BLEU {:.1f}, then {:.1f}".format(row.name, *both(row)) for row in rows if row.status == "done"]
    return "\n".join(["", *lines, ""])


def qlora(bench: Bench, e2e: Path | None) -> str:
    """Returns the table of QLoRA against LoRA and the checks of E3; the LoRA runs are those of `claims`."""
    from scripts.repro import check
    from scripts.repro import claims as made

    lora = made.dense(bench.sweep("lora_vs_full"), {"adapter.rank": 16, "optimizer.learning_rate": 1e-2})
    table, checks = made.qlora_vs_lora([*lora, *bench.sweep("qlora_vs_lora")])
    text = f"{table}\n{check.table(checks)}"
    if e2e is None:
        return text
    arg = smollm2(bench, e2e)
    changes = {"adapter.rank": 4, "adapter.alpha": 8.0, "optimizer.learning_rate": 2e-3}
    lora = made.dense(bench.sweep("lora_vs_full", arg, "lora_smollm2"), changes)
    return f"{text}\nSmolLM2\n\n{made.qlora_vs_lora([*lora, *bench.sweep('qlora_vs_lora', arg, 'qlora_smollm2')])[0]}"


def smollm2(bench: Bench, source: Path) -> str:
    """Returns the config argument for SmolLM2 on the E2E data."""
    from scripts.repro import e2e

    train, heldout = e2e.write(source, bench.folder / "e2e")
    return SMOLLM2.format(train=train, heldout=heldout) + (",bleu" if e2e.has_bleu() else "")


def e1(bench: Bench, _: Path | None) -> str:
    """Returns the checks of E1."""
    from scripts.repro import check, data_types

    return check.table(data_types.run(bench.base(), bench.s1 / "a_heldout.jsonl"))


def e2(_: Bench, __: Path | None) -> str:
    """Returns the checks of E2."""
    from scripts.repro import check, double_quant

    return check.table(double_quant.run())


def e3(bench: Bench, _: Path | None) -> str:
    """Returns the checks of E3 on S1."""
    from scripts.repro import check
    from scripts.repro import claims as made

    bench.base()
    changes = {"adapter.rank": 16, "optimizer.learning_rate": 1e-2}
    lora = made.dense(bench.sweep("s1_lora", folder="s1/sweep"), changes)
    table, checks = made.qlora_vs_lora([*lora, *bench.sweep("s1_qlora", folder="s1/qlora")])
    return f"{table}\n{check.table(checks)}"


def e4(bench: Bench, _: Path | None) -> str:
    """Returns the checks of E4."""
    from scripts.repro import check, ranks

    bench.base()
    return check.table(ranks.e4(bench.sweep("s1_lora", folder="s1/sweep")))


def e5(bench: Bench, _: Path | None) -> str:
    """Returns the checks of E5."""
    from ftjax.runs import report
    from scripts.repro import check, ranks

    base, heldout = bench.base(), bench.s1 / "a_heldout.jsonl"
    rows = bench.sweep("s1_lora", folder="s1/sweep")
    forgot = ranks.forgetting(bench.s1 / "sweep", ranks.compared(rows), heldout, report.say)
    return check.table(ranks.e5(rows, forgot, ranks.loss_of(f"model={base}", heldout)))


def e6(bench: Bench, _: Path | None) -> str:
    """Returns the checks of E6."""
    from scripts.repro import check, scaling

    base = bench.base()
    checks = scaling.run(base, bench.s1 / "b_train.jsonl", bench.s1 / "rslora", bench.train, {})
    return check.table(checks)


def e7(bench: Bench, _: Path | None) -> str:
    """Returns the policies and the checks of E7."""
    from scripts.repro import frontier, frontier_rules

    return frontier_rules.e7(*bench.enumerable("frontier", frontier.measure))


def e8(bench: Bench, _: Path | None) -> str:
    """Returns the judges and the checks of E8; the runs are those of E7."""
    from scripts.repro import frontier, frontier_rules

    return frontier_rules.e8(*bench.enumerable("frontier", frontier.measure))


def e9(bench: Bench, _: Path | None) -> str:
    """Returns the curves and the checks of E9."""
    from scripts.repro import overoptimised, overoptimised_rules

    return overoptimised_rules.e9(*bench.enumerable("overoptimised", overoptimised.measure))


def e10(_: Bench, __: Path | None) -> str:
    """Returns the checks of E10."""
    from scripts.repro import estimators

    return estimators.run((0, 1, 2))


def kin(bench: Bench, _: Path | None) -> str:
    """Returns the methods and the checks of PPO's kin in the world of E7."""
    from scripts.repro import kin as made

    return made.report(*bench.enumerable("kin", made.measure))


def selection(bench: Bench, _: Path | None) -> str:
    """Returns what is gained by training on rows that the base does not answer yet, and of other choices."""
    from scripts.repro import selection as made

    text = made.run(bench, made.world(bench.folder / "selection" / "world"))
    if bench.persona is None:
        return text
    return f"{text}\nSmolLM2\n\n{made.run(bench, made.persona(bench.folder / 'selection' / 'persona', bench.persona))}"


ALL: dict[str, Callable[[Bench, Path | None], str]] = {
    made.__name__: made for made in (claims, qlora, e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, kin, selection)
}


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: all")
    parser.add_argument("--folder", type=Path, default=Path("runs/repro"), help="where everything is kept")
    parser.add_argument("--e2e", type=Path, help="the E2E data, context||sentence a line")
    parser.add_argument("--persona", type=Path, help="the folder of Anthropic's persona evaluations (jsonl.gz)")
    for name, readers in CONFIGS.items():
        spec = f"configs/repro/{name}.py"
        parser.add_argument(f"--{name}", default=spec, metavar="CONFIG", help=f"the settings of {readers}")
    flags = cli.parse(parser, argv)
    for name in flags.names:
        if name not in ALL:
            raise UserError(f"no reproduction {name!r}; there are {', '.join(ALL)}")

    from ftjax import experiment, sweep
    from ftjax.runs import atomic, report

    experiment.use_compilation_cache()
    bench, failed = Bench(flags.folder, {name: getattr(flags, name) for name in CONFIGS}, flags.persona), False
    for name in flags.names or ALL:
        report.say(f"\n{name}: {ALL[name].__doc__}")
        try:
            text = ALL[name](bench, flags.e2e)
        except sweep.InterruptedSweepError as stopped:
            report.say(f"{stopped} is saved; the same command goes on with it")
            return 130
        atomic.write_text(flags.folder / f"{name}.md", text)
        print(text)
        failed |= "| FAIL |" in text
    return int(failed)


if __name__ == "__main__":
    sys.exit(cli.run(main))
