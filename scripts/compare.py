"""Compares runs on the rows that they share: the verdict in words, intervals, costs, samples; one page, Markdown, JSON.

python scripts/compare.py --runs base runs/A runs/B --baseline base --out runs/comparison
python scripts/compare.py --runs runs/A runs/B --baseline A --out DIR --evaluations runs/BENCH_A runs/BENCH_B runs/JUDGE
                          [--votes VOTES.jsonl] [--bar 0.9] [--level 0.95] [--force]

--runs takes run folders, folders of scripts/evaluate.py on held-out rows, `base` (what the first run was before
training) and `base:RUN`. --evaluations adds benchmarks, more held-out rows and judges of these runs, --votes what
people chose. --bar names the smallest model whose interval lies beyond it. Exit status 2 where runs cannot be compared:
other held-out rows, checks or lengths of answers, another version of the data, another template; --force compares what
they share and says so.
"""

from pathlib import Path
import sys

from scripts import cli


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--runs", nargs="+", required=True, help="two or more of what is compared")
    parser.add_argument("--baseline", help="the one of --runs that the others are held against; default: the first")
    parser.add_argument("--out", type=Path, required=True, help="a new folder: index.html, comparison.md and .json")
    parser.add_argument("--evaluations", nargs="+", default=[], help="more folders of scripts/evaluate.py")
    parser.add_argument("--votes", action="append", default=[], help="a JSONL file of people's votes")
    parser.add_argument("--bar", type=float, help="what the smallest capable model must reach")
    parser.add_argument("--level", type=float, default=0.95, help="of intervals, and 1 - that of tests")
    parser.add_argument("--force", action="store_true", help="compare what differs in rows, checks, data or template")
    flags = cli.parse(parser, argv)
    cli.refuse({f"--level {flags.level}: give a share between 0 and 1, say 0.95": not 0 < flags.level < 1})

    from ftjax.compare import evaluations, findings, outputs, systems, votes
    from ftjax.runs import report

    outputs.check(flags.out)
    found = systems.read(flags.runs)
    baseline = systems.named(found, flags.baseline or found[0].name).name
    found, judges = evaluations.added(found, flags.evaluations)
    told = findings.compare(
        found,
        systems.named(found, baseline),
        judges=judges,
        people=[vote for file in flags.votes for vote in votes.read(file)],
        bar=flags.bar,
        force=flags.force,
        level=flags.level,
        resamples=findings.RESAMPLES,
        seed=findings.SEED,
    )
    outputs.write(flags.out, told)
    for line in (*told["notes"], *told["verdict"]):
        report.say(f"- {line}")
    report.say(f"everything is in {flags.out}: {', '.join(outputs.FILES)}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
